"""Read stored runs for a comparison: the rows of each, and which images they are right on. Each store is read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench.errors import InputError, RunError
from tomebench.identity import MODEL
from tomebench.runs.accuracy_columns import Answers
from tomebench.runs.members import all_runs
from tomebench.runs.origin import Origin
from tomebench.runs.plan_shares import SHARE, check_shares
from tomebench.runs.row import Row
from tomebench.runs.rows import read_cells
from tomebench.runs.store import Store
from tomebench.runs.top1 import is_right
from tomebench.words import counted


@dataclass(frozen=True)
class Measured:
    """A row with the answers behind its top-1."""

    row: Row
    run: str  # folder that it is from
    right: npt.NDArray[np.bool_] | None = None  # of the images ``seen``, [n]; None where top-1 is not known
    seen: npt.NDArray[np.int64] | None = None  # indices of its images in the list, ascending; [n]
    stopped: bool = False  # its images were counted until something was known, so they are fewer than others have
    classes: npt.NDArray[np.uint16] | None = None  # predicted, of the same images; [n]
    answers: Answers | None = None  # of the whole run
    key: str = ""  # of its cell


def read_runs(runs: Sequence[Path]) -> tuple[list[Measured], list[str]]:
    """Read the rows of runs; second, remarks on what they do not share.

    Args:
        runs: run folders, or folders of several.

    Raises:
        RunError: there is no run in a folder, or none of them holds results.
        InputError: a run is named twice, two were evaluated on different images, or shares are not of one plan.
        StorageError: a store is damaged.
    """
    folders = all_runs(runs)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a run folder is named twice; name every run once")
    found: list[Measured] = []
    origins: list[tuple[Path, Origin]] = []
    shares: list[Mapping[str, Any] | None] = []
    for folder in folders:
        with Store.read(folder) as store:
            measured = _measured(store, folder)
            origins.append((folder, Origin.of(store)))
            shares.append(store.get(SHARE))
        found += measured
    if not found:
        raise RunError(f"{folders[0]} holds no results yet; tomebench sweep measures them")
    _check_images(found)
    missing = check_shares(folders, shares, [origin for _, origin in origins])
    return found, [*([missing] if missing else []), *_remarks(origins)]


def _measured(store: Store, folder: Path) -> list[Measured]:
    rows, answers = read_cells(store)
    seen, found = store.seen(), []
    for key, row in rows.items():
        predictions = answers.predictions.get(key) if answers else None
        if answers is None or predictions is None or predictions.nonfinite:
            found.append(Measured(row, str(folder)))
            continue
        own = answers.places.get(key)
        right = is_right(predictions, answers.labels_of(key)) if answers.images.labelled else None
        images = seen if own is None else seen[own]
        found.append(Measured(row, str(folder), right, images, own is not None, predictions.top1, answers, key))
    return found


def _check_images(found: Sequence[Measured]) -> None:
    """Raise InputError where rows have top-1 on different lists of images."""
    lists = {each.row.dataset_digest: each for each in found if each.classes is not None or each.right is not None}
    if len(lists) > 1:
        first, second, *_ = lists.values()
        raise InputError(
            f"{second.run} was evaluated on other images ({_images(second)}) than {first.run} ({_images(first)}); "
            "name runs of the same images"
        )


def _images(measured: Measured) -> str:
    number = counted(measured.row.n_seen or 0, "image")
    return f"{number} of {measured.row.dataset}, digest {(measured.row.dataset_digest or '')[:8]}"


def _remarks(origins: Sequence[tuple[Path, Origin]]) -> list[str]:
    """Remarks on runs that were measured with other code or libraries than the first.

    Raises:
        InputError: an image of the same name is another one.
    """
    found = []
    first, there = origins[0]
    for run, here in origins[1:]:
        if image := there.other_image(here):
            raise InputError(
                f"{image} of {run} is not that of {first}, under the same name; name runs of the same images"
            )
        facts = [each for each in there.other_facts(here) if each.name not in MODEL]
        found += [f"{run} was measured with another {each.name} than {first} ({each})" for each in facts]
    return found
