"""The accuracy columns of a row, from stored predictions. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.runs.answers import agreeing, at_chance_level, counts, discordant
from tomebench.schema import CellPredictions, ImageList, Pace

PROCESSES = "processes"
"""Name in a session's testbed: how many processes evaluate images side by side; absent for one."""


@dataclass(frozen=True)
class Answers:
    """What the cells of a run said about its images. Mappings are by cell key."""

    images: ImageList
    labels: npt.NDArray[np.int64]  # of the images seen, [n_seen]
    predictions: Mapping[str, CellPredictions]  # each [n_seen]
    baseline: str | None  # key of the r = 0 cell
    pace: Mapping[str, float]  # columns about the pass over the images
    late: frozenset[str]  # cells that were not part of that pass, at least not of all of it

    @property
    def complete(self) -> bool:
        """All images have been seen."""
        return len(self.labels) == len(self.images.labels)


def accuracy_columns(answers: Answers, key: str) -> dict[str, Any]:
    """Top-1 of a cell with its intervals; nothing if it was not evaluated, no counts if its logits were not finite.

    Args:
        answers: of all cells.
        key: of the cell.
    """
    found, n = answers.predictions.get(key), len(answers.labels)
    if found is None:
        return {}
    images = answers.images
    note = f" ({images.note})" if images.note else ""
    fields: dict[str, Any] = {
        "dataset": images.name + note,
        "dataset_digest": images.digest,
        "n_seen": n,
        **({} if key in answers.late else answers.pace),
    }
    if found.nonfinite:
        return fields
    base = answers.predictions.get(answers.baseline or "")
    if base is not None and not base.nonfinite:
        agreed = agreeing(base, found)
        fields |= {"agreement": 100 * agreed / n, "agreed": agreed}
        if key != answers.baseline:
            share = stats.wilson(agreed, n)
            fields |= {"agreement_lo": 100 * share.lo, "agreement_hi": 100 * share.hi}
    if not images.labelled:
        return fields
    hits, top5 = counts(found, answers.labels)
    interval = stats.wilson(hits, n)
    fields |= {
        "top1_correct": hits,
        "top5_correct": top5,
        "ties": found.ties,
        "top1": 100 * hits / n,
        "top1_lo": 100 * interval.lo,
        "top1_hi": 100 * interval.hi,
    }
    if key == answers.baseline:
        fields |= {"top1_lost": 0, "top1_gained": 0, "mcnemar_p": 1.0}  # by definition
        fields |= {"delta_top1": 0.0, "delta_top1_lo": 0.0, "delta_top1_hi": 0.0}
    elif base is not None and not base.nonfinite:
        lost, gained = discordant(base, found, answers.labels)
        delta = stats.paired_delta(lost, gained, n)
        fields |= {
            "top1_lost": lost,
            "top1_gained": gained,
            "delta_top1": 100 * delta.delta,
            "delta_top1_lo": 100 * delta.interval.lo,
            "delta_top1_hi": 100 * delta.interval.hi,
            "mcnemar_p": delta.p,
        }
    return fields


def guesses(answers: Answers, key: str) -> bool:
    """A cell is right no more often than by guessing; False where that cannot be told."""
    found = answers.predictions.get(key)
    if not answers.images.labelled or found is None or found.nonfinite:
        return False
    return at_chance_level(found, answers.labels, answers.images.num_classes)


def pace_columns(paces: Sequence[Pace], testbeds: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """How fast the pass over the images was, for all cells together; nothing where no chunk says so.

    Args:
        paces: of the sessions that evaluated images.
        testbeds: by session.
    """
    if not paces:
        return {}
    # Processes work side by side, each on as many batches as the others or one less.
    wall = 0.0
    for pace in paces:
        turns = math.ceil(pace.chunks / testbeds[pace.session].get(PROCESSES, 1))
        wall += turns * pace.seconds / pace.chunks
    return {
        "img_per_s_accuracy": sum(pace.images for pace in paces) / wall,
        "input_share": 100 * sum(pace.waited for pace in paces) / sum(pace.seconds for pace in paces),
    }
