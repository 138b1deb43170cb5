"""Counting right answers: every cell sees the same decoded batch, every prediction is kept, sums are integers.

Torch is imported where logits are handled and not before: tables are rebuilt from stored predictions without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tomebench.datasets.classes import IMAGENET_21K, MOST_CLASSES, NUM_CLASSES
from tomebench.errors import DataError
from tomebench.schema import CellPredictions, Chunk, ImageList
from tomebench.stats import clopper_pearson
from tomebench.words import noun

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.datasets.loader import Batch

NO_PREDICTION = 65535
"""Stored as the predicted class of an image with a NaN or infinite logit; no label has this value."""
TOP = 5


def predict(
    models: Mapping[str, Callable[[Tensor], Tensor]],
    batch: Batch,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
) -> Chunk:
    """Run every cell on one batch.

    Args:
        models: cell key -> function from prepared images [B, 3, H, W] to logits [B, classes] of any floating dtype.
        batch: images and labels; only its first ``n_valid`` images count.
        prepare: from the images of the batch to what the models take, on the device where they run.

    Returns:
        Predictions of every cell: argmax of the fp32 logits, the lowest class among equals.
    """
    import torch

    # Outside: a tensor made in inference mode is another kind of tensor, for which a compiled pass is compiled anew.
    images = prepare(batch.images)
    with torch.inference_mode():
        labels = batch.labels[: batch.n_valid].to(images.device)
        found = {key: _judge(model(images)[: batch.n_valid].float(), labels) for key, model in models.items()}
        return Chunk(batch.index, found, read=batch.read)


def _judge(logits: Tensor, labels: Tensor) -> CellPredictions:
    """Predictions from fp32 logits [n, classes] and labels int64 [n], or [n, k]; NO_LABEL is none."""
    import torch

    finite = logits.isfinite().all(dim=1)
    if labels.ndim == 1:
        in_top5 = (_rank(logits, labels.clamp(min=0)) < TOP) & (labels >= 0)
    else:  # one column after the other: all at once would take the memory of the logits once for each
        columns = [(_rank(logits, each.clamp(min=0)) < TOP) & (each >= 0) for each in labels.unbind(1)]
        in_top5 = torch.stack(columns).any(dim=0)
    largest = logits.amax(dim=1, keepdim=True)
    tied = (logits == largest).sum(dim=1) > 1
    top1 = logits.argmax(dim=1).where(finite, NO_PREDICTION)
    answers = torch.stack([top1, in_top5 & finite, tied & finite, ~finite]).cpu().numpy()  # one transfer
    return CellPredictions(
        top1=answers[0].astype(np.uint16),
        in_top5=answers[1].astype(np.bool_),
        ties=int(answers[2].sum()),
        nonfinite=int(answers[3].sum()),
    )


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Position [n] of a class when those of an image are sorted by (logit descending, class ascending).

    A sort or topk would leave the order of equal logits to the kernel.
    """
    import torch

    true = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > true) | ((logits == true) & earlier)).sum(dim=1)


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


def require_matching_head(num_classes: int, images: ImageList) -> None:
    """Refuse a model whose head has another number of classes than the data set, where its images have labels.

    Args:
        num_classes: outputs of the model's head; 0 for a model without one.
        images: the data set.

    Raises:
        DataError: they differ; says what would fit.
    """
    if num_classes > MOST_CLASSES:
        raise DataError(f"the model has {_spaced(num_classes)} classes: at most {_spaced(MOST_CLASSES)} can be counted")
    if num_classes > 0 and (num_classes == images.num_classes or not images.labelled):
        return
    if num_classes == 0:
        problem = "the model has no classifier"
    else:
        problem = f"the model has {_classes(num_classes)} and {images.name} {_spaced(images.num_classes)}"
    if images.num_classes == NUM_CLASSES and num_classes in IMAGENET_21K:
        remedy = "use a tag ending in _ft_in1k"
    else:
        own = f"trained for {_classes(images.num_classes)}" if images.labelled else "with a classifier"
        remedy = f"use weights {own}, or leave out --data"
    raise DataError(f"{problem}: {remedy}")


def _classes(number: int) -> str:
    return f"{_spaced(number)} {noun(number, 'class')}"


def _spaced(number: int) -> str:
    """``21 843``: groups of three digits, readable in every locale."""
    return f"{number:,}".replace(",", " ")
