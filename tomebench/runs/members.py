"""Members: the run folders below one parent folder, which a sweep over several models or sizes makes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tomebench.errors import RunError
from tomebench.runs.database import FILE


def member_runs(path: Path) -> list[Path]:
    """The run folders that a path stands for: its members if it is a parent, in order of their names; else itself.

    A folder that holds a run is no parent, whatever lies below it. Numbers in names count as numbers.
    """
    if (path / FILE).is_file() or not path.is_dir():
        return [path]
    found = [folder for folder in path.iterdir() if (folder / FILE).is_file()]
    return sorted(found, key=lambda folder: [_by_numbers(part) for part in folder.name.split("-")]) or [path]


def all_runs(paths: Iterable[Path]) -> list[Path]:
    """The run folders that several paths stand for, in their order."""
    return [run for path in paths for run in member_runs(path)]


def no_run(directory: Path) -> RunError:
    """The error for a folder that holds no run; it names the first of those below it."""
    below = member_runs(directory)[0]
    if below != directory:
        return RunError(f"{directory} holds runs below it and none itself; name one of them, such as {below}")
    return RunError(f"there is no run in {directory} ({FILE} is missing); tomebench sweep makes one")


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Sort key of a part of a name, in which 96px comes before 128px."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
