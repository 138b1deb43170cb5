"""Accuracy columns of a row (top-1, its difference from r = 0, agreement) from stored predictions. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.runs.race_facts import RaceFacts
from tomebench.runs.top1 import agreeing, at_chance_level, counts, discordant, is_right, paired
from tomebench.schema import CellPredictions, ImageList, Pace

PROCESSES = "processes"
"""Name in a session's testbed: number of processes that evaluate images side by side; absent for one."""


@dataclass(frozen=True)
class Answers:
    """Predictions of the cells of a run for the images evaluated so far. Mappings are by cell key."""

    images: ImageList
    labels: npt.NDArray[np.int64]  # of the images seen, [n_seen]
    predictions: Mapping[str, CellPredictions]  # each [n_seen]
    baseline: str | None  # key of the r = 0 cell
    pace: Mapping[str, float]  # throughput columns of the evaluation
    late: frozenset[str]  # cells evaluated on images on which others had been evaluated before
    random: bool = False  # images are in a random order
    race: RaceFacts | None = None  # where cells are stopped, each on images of its own
    places: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """In a race, the places of a cell's images among all that were seen; its predictions are of those."""
    verdicts: Mapping[str, bool | None] = field(default_factory=dict)
    """In a race, whether all images would show that a cell keeps the limit; None where that is open."""

    def labels_of(self, key: str) -> npt.NDArray[np.int64]:
        """True classes of a cell's images."""
        return self.labels[self.places[key]] if key in self.places else self.labels

    def beside(self, key: str) -> CellPredictions | None:
        """Predictions of r = 0 for a cell's images; None where it has none, or not for all of them."""
        base = self.predictions.get(self.baseline or "")
        if base is None or key not in self.places:
            return base
        there = self.places[self.baseline or ""]
        at = np.searchsorted(there, self.places[key])
        if at.max(initial=-1) >= len(there) or not np.array_equal(there[at], self.places[key]):
            return None
        return CellPredictions(base.top1[at], base.in_top5[at], nonfinite=base.nonfinite)

    def stops(self, key: str) -> bool:
        """Whether a race that is over has not run a cell on all images."""
        if self.race is None or not self.race.over or key == self.baseline:
            return False
        return len(self.places.get(key, ())) < len(self.images.labels)

    @property
    def complete(self) -> bool:
        """All images of the list have been evaluated, or as many as the race needed."""
        return self.race.over if self.race is not None else len(self.labels) == len(self.images.labels)


def accuracy_columns(answers: Answers, key: str) -> dict[str, Any]:
    """Top-1 of a cell with intervals; empty if it was not evaluated, without counts if its logits were not finite.

    Args:
        answers: of all cells.
        key: of the cell.
    """
    found = answers.predictions.get(key)
    if found is None:
        return {}
    images, labels, n = answers.images, answers.labels_of(key), len(found.top1)
    raced = answers.race is not None and key != answers.baseline
    note = f" ({images.note})" if images.note else ""
    fields: dict[str, Any] = {
        "dataset": images.name + note,
        "dataset_digest": images.digest,
        "n_seen": n,
        **({} if key in answers.late else answers.pace),
    }
    if found.nonfinite:
        return fields
    base = answers.beside(key)
    if base is not None and not base.nonfinite:
        agreed = agreeing(base, found)
        fields |= {"agreement": 100 * agreed / n, "agreed": agreed}
        if key != answers.baseline:
            share = stats.wilson(agreed, n)
            if raced:
                changed = stats.anytime_interval(paired(base.top1, found.top1, labels, by_agreement=True))
                share = stats.Interval(1 + changed.lo, 1 + changed.hi)
            fields |= {"agreement_lo": 100 * share.lo, "agreement_hi": 100 * share.hi}
    if not images.labelled:
        return fields
    hits, top5 = counts(found, labels)
    interval = stats.wilson(hits, n)
    if raced:
        interval = stats.anytime_interval(is_right(found, labels).astype(np.int8))
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
        lost, gained = discordant(base, found, labels)
        delta = stats.paired_delta(lost, gained, n)
        within, p = delta.interval, delta.p
        if raced:
            differences = paired(base.top1, found.top1, labels, by_agreement=False)
            within, p = stats.anytime_interval(differences), stats.anytime_p(differences)
        fields |= {
            "top1_lost": lost,
            "top1_gained": gained,
            "delta_top1": 100 * delta.delta,
            "delta_top1_lo": 100 * within.lo,
            "delta_top1_hi": 100 * within.hi,
            "mcnemar_p": p,
        }
    return fields


def guesses(answers: Answers, key: str) -> bool:
    """Whether a cell's top-1 is at chance level; False without labels or finite logits."""
    found = answers.predictions.get(key)
    if not answers.images.labelled or found is None or found.nonfinite:
        return False
    return at_chance_level(found, answers.labels_of(key), answers.images.num_classes)


def pace_columns(paces: Sequence[Pace], testbeds: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """Throughput of the evaluation, for all cells together; empty where no chunk has its seconds.

    Args:
        paces: of the sessions that evaluated images.
        testbeds: by session number.
    """
    if not paces:
        return {}
    # The processes evaluate side by side, each the same number of batches or one less.
    wall = 0.0
    for pace in paces:
        turns = math.ceil(pace.chunks / testbeds[pace.session].get(PROCESSES, 1))
        wall += turns * pace.seconds / pace.chunks
    return {
        "img_per_s_accuracy": sum(pace.images for pace in paces) / wall,
        "input_share": 100 * sum(pace.waited for pace in paces) / sum(pace.seconds for pace in paces),
    }
