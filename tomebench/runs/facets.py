"""What is known of a setting of a sweep besides its type and its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Panel = Literal["Model", "Method", "Data", "Timing", "Output", "Several processes"]
"""Sections of the help, in their order."""


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its type and its default, which are those of the attribute."""

    help: str
    metavar: str | None = None
    panel: Panel = "Output"
    often: bool = False
    """``--help`` shows it; otherwise only ``--help-all`` does."""
    shown: str | None = None
    """The default as the help shows it; None: as it is."""
    read: Callable[[Any], Any] | None = None
    """Gives the value that is meant by one of another type; raises ValueError, which says what would do."""
    check: Callable[[Any], Any] | None = None
    """Gives a value that may be used; raises ValueError, which says what would do. None, "not set", is never asked."""
    repeated: bool = False
    """The flag may be there several times."""
    one_way: bool = False
    """A switch that no flag turns off."""

    identity: bool = True
    """It can change a result: a run folder goes on only with the same value."""
    since: Literal[1, 2] = 2
    """1: the first version already stored it, so it is stored at its default, too; 2: it is left out there, so that
    runs that are older than the setting go on."""
    states: Literal["cell", "images", "run"] | None = None
    """Where a stored run has what it came to, in resolved form: in the cell, in the list of images, or in how much was
    measured. The hash of the protocol takes it from there; None: it takes the setting as it is."""
    grows: bool = False
    """It says how much is measured: a run folder goes on with another value, and has both."""
    needs: str = ""
    """Why it means nothing without images: a clause that ends in "but there are none; add --data"."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """The schema of the attribute's type, with ``read`` before and ``check`` after it."""
        from pydantic_core import core_schema

        schema, check = handler(source), self.check
        if check is not None:
            schema = core_schema.no_info_after_validator_function(lambda v: v if v is None else check(v), schema)
        return schema if self.read is None else core_schema.no_info_before_validator_function(self.read, schema)
