"""The Setting record: what a setting declares besides type and default, such as help, check, role in a stored run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Panel = Literal["Model", "Method", "Data", "Timing", "Output", "Several processes"]
"""Sections of the help, in their order."""


@dataclass(frozen=True)
class Setting:
    """What a setting declares besides its type and default, which are those of the attribute."""

    help: str
    metavar: str | None = None
    panel: Panel = "Output"
    often: bool = False
    """``--help`` lists it; otherwise only ``--help-all`` does."""
    shown: str | None = None
    """The default as the help prints it; None: the value itself."""
    read: Callable[[Any], Any] | None = None
    """Converts a value of another type to the setting's; raises ValueError, whose text says what is accepted."""
    check: Callable[[Any], Any] | None = None
    """Validates a value; raises ValueError, whose text says what is accepted. None, "not set", is not checked."""
    repeated: bool = False
    """The flag may be given several times."""
    axis: bool = False
    """A sweep takes several values of it, with commas between them, and makes a run of each combination."""
    one_way: bool = False
    """A switch without a flag that turns it off."""

    identity: bool = True
    """It can change a result: a run folder is continued only with the same value, unless ``grows``."""
    since: Literal[1, 2] = 2
    """1: stored by the first version, so it is stored even at its default; 2: left out at its default, so that runs
    older than the setting can be continued.
    """
    states: Literal["cell", "images", "run"] | None = None
    """Where a stored run records its resolved form: in the cell, in the image list, or in how much was measured. The
    protocol hash then leaves the setting out; None: it takes the setting as it is.
    """
    grows: bool = False
    """It says how much is measured: a run folder can be continued with another value, and then has both."""
    needs: str = ""
    """Reason of the refusal where it is given without images, to which "; add --data, or drop" is added."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Pydantic schema of the attribute's type, with ``read`` before and ``check`` after it."""
        from pydantic_core import core_schema

        schema, check = handler(source), self.check
        if self.read is not None:
            schema = core_schema.no_info_before_validator_function(self.read, schema)
        if check is None:
            return schema
        return core_schema.no_info_after_validator_function(lambda v: v if v is None else check(v), schema)
