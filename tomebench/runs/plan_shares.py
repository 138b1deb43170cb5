"""Shares of a plan as runs remember them: whether runs belong together, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomebench.errors import InputError
from tomebench.identity import MODEL
from tomebench.runs.origin import Origin
from tomebench.words import are, counted

SHARE = "share"
"""Name of the stored fact: the plan that a run is part of."""


@dataclass(frozen=True)
class PlanShare:
    """The plan that a run is part of."""

    share: str  # i/n
    plan: str  # digest of the settings of all its runs
    runs: tuple[str, ...]  # names of all its runs

    def to_json(self, name: str) -> dict[str, Any]:
        """The stored fact of the run of that name."""
        return {"share": self.share, "plan": self.plan, "runs": list(self.runs), "run": name}


def check_shares(folders: Sequence[Path], facts: Sequence[Mapping[str, Any] | None], origins: Sequence[Origin]) -> str:
    """A remark on what is missing of the plan that runs are shares of; empty where none are, or nothing is.

    Args:
        folders: of the runs.
        facts: what each remembers of its plan.
        origins: provenance of each.

    Raises:
        InputError: shares of two plans, or of other code or libraries; or a run is there twice.
    """
    shares = [(folder, fact, origin) for folder, fact, origin in zip(folders, facts, origins, strict=True) if fact]
    if not shares:
        return ""
    first, plan, made = shares[0]
    found: dict[str, Path] = {}
    for folder, fact, origin in shares:
        if fact["plan"] != plan["plan"]:
            raise InputError(
                f"{folder} is a share of another plan than {first}: it was asked with other settings; repeat that share"
            )
        if other := next((each for each in made.other_facts(origin) if each.name not in MODEL), None):
            raise InputError(
                f"{folder} was measured with another {other.name} than {first} ({other}), and shares of one plan need "
                "the same; repeat that share"
            )
        if fact["run"] in found:
            raise InputError(f"{folder} and {found[fact['run']]} are the same run of a plan; name one of them")
        found[fact["run"]] = folder
    missing = [name for name in plan["runs"] if name not in found]
    if not missing:
        return ""
    count = int(str(plan["share"]).partition("/")[2])
    again = sorted({plan["runs"].index(name) % count + 1 for name in missing})
    which = ", ".join(f"--share {number}/{count}" for number in again)
    lacking = f"{len(missing)} {are(len(missing))} missing: {', '.join(missing)} ({which})"
    return f"of the {counted(len(plan['runs']), 'run')} of the plan {lacking}"
