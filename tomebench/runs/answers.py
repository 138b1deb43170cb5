"""Counting right answers among stored predictions: sums are integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tomebench.schema import CellPredictions
from tomebench.stats import clopper_pearson

NO_PREDICTION = 65535
"""Stored as the predicted class of an image with a NaN or infinite logit; no label has this value."""


def counts(predictions: CellPredictions, labels: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Images whose top-1 is right, and images whose true class is in the top 5.

    Args:
        predictions: of n images.
        labels: int64 [n], the true classes of the same images; or [n, k], padded with -1.
    """
    return int(is_right(predictions, labels).sum()), int(predictions.in_top5.sum())


def discordant(base: CellPredictions, other: CellPredictions, labels: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Images on which two cells differ: (b) only ``base`` is right, (c) only ``other`` is right.

    Args:
        base: predictions of the cell that is compared with.
        other: predictions of the cell in question, for the same n images.
        labels: int64 [n], their true classes; or [n, k], padded with -1.
    """
    base_right, other_right = is_right(base, labels), is_right(other, labels)
    return int((base_right & ~other_right).sum()), int((other_right & ~base_right).sum())


def agreeing(base: CellPredictions, other: CellPredictions) -> int:
    """Images that two cells give the same top-1 class; one without finite logits has none.

    Args:
        base: predictions of the cell that is compared with.
        other: predictions of the cell in question, for the same images.
    """
    return int(((base.top1 == other.top1) & (base.top1 != NO_PREDICTION)).sum())


def is_right(predictions: CellPredictions, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which predictions are right; bool [n].

    Args:
        predictions: of n images.
        labels: int64 [n]; or [n, k], where any of an image's classes is right and -1 is none.
    """
    if len(predictions.top1) != len(labels):
        raise ValueError(f"{len(predictions.top1)} predictions for {len(labels)} labels")
    if labels.ndim == 1:
        return predictions.top1 == labels
    return (predictions.top1[:, None] == labels).any(axis=1)


def at_chance_level(found: CellPredictions, labels: npt.NDArray[np.int64], num_classes: int) -> bool:
    """Whether predictions are right no more often than by guessing, or are of the right images under other numbers.

    The second is what another order of the classes looks like, in which a few classes are still where they were: images
    of one class are given one class, only not their own.

    Args:
        found: predictions of n images.
        labels: int64 [n], the true classes of the same images; or [n, k], NO_LABEL being none.
        num_classes: of the model.
    """
    n, hits = len(labels), counts(found, labels)[0]
    midway = (1 / num_classes + 1) / 2
    share = clopper_pearson(hits, n)  # of a handful of images it is too wide to tell
    if share.lo <= 1 / num_classes and share.hi < midway:
        return True
    if labels.ndim > 1:
        return False
    consistent = 0
    for label in np.unique(labels):
        times = np.bincount(found.top1[labels == label])
        often = int(times.max())
        if often > 1 and (times == often).sum() == 1:
            consistent += often
    return consistent >= n / 2 and hits < consistent / 2
