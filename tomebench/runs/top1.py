"""Count top-1 and top-5 among stored predictions, and images on which two cells differ; all counts are integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tomebench.schema import NO_LABEL, CellPredictions
from tomebench.stats import Differences, clopper_pearson

NO_PREDICTION = 65535
"""Predicted class stored for an image with a NaN or infinite logit; no label has this value."""


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
        base: predictions of the cell to compare with, mostly r = 0.
        other: predictions of another cell for the same n images.
        labels: int64 [n], their true classes; or [n, k], padded with -1.
    """
    base_right, other_right = is_right(base, labels), is_right(other, labels)
    return int((base_right & ~other_right).sum()), int((other_right & ~base_right).sum())


def agreeing(base: CellPredictions, other: CellPredictions) -> int:
    """Number of images for which two cells predict the same class; an image without finite logits does not agree.

    Args:
        base: predictions of the cell to compare with, mostly r = 0.
        other: predictions of another cell for the same images.
    """
    return int(((base.top1 == other.top1) & (base.top1 != NO_PREDICTION)).sum())


def is_right(predictions: CellPredictions, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the top-1 of each image is right; bool [n].

    Args:
        predictions: of n images.
        labels: int64 [n]; or [n, k], where any of an image's classes is right and -1 is none.
    """
    return right_among(predictions.top1, labels)


def right_among(top1: npt.NDArray[np.uint16], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """:func:`is_right` of predicted classes [n]."""
    if len(top1) != len(labels):
        raise ValueError(f"{len(top1)} predictions for {len(labels)} labels")
    if labels.ndim == 1:
        return top1 == labels
    return (top1[:, None] == labels).any(axis=1)


def at_chance_level(found: CellPredictions, labels: npt.NDArray[np.int64], num_classes: int) -> bool:
    """Whether predictions are no better than guessing, or right except for the numbering of the classes.

    Classes numbered in another order, a few of them unchanged, look like the second: the images of a class are all
    given one class, but not their own.

    Args:
        found: predictions of n images.
        labels: int64 [n], the true classes of the same images; or [n, k], NO_LABEL being none.
        num_classes: of the model.
    """
    n, hits = len(labels), counts(found, labels)[0]
    midway = (1 / num_classes + 1) / 2
    share = clopper_pearson(hits, n)  # for a handful of images the interval is too wide to decide
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


def paired(
    base: npt.NDArray[np.uint16], other: npt.NDArray[np.uint16], labels: npt.NDArray[np.int64], *, by_agreement: bool
) -> Differences:
    """Paired differences of predictions of the same images: -1 where only ``base`` is right, +1 where only ``other``.

    By agreement, or without labels, -1 where the classes differ.
    """
    if by_agreement or not (labels != NO_LABEL).any():
        return -(base != other).astype(np.int8)
    rows = labels if labels.ndim > 1 else labels[:, None]
    first, second = ((each[:, None] == rows).any(axis=1).astype(np.int8) for each in (base, other))
    return second - first
