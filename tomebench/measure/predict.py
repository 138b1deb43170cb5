"""Predict: run every cell on one decoded batch of images; top-1, top-5, ties and non-finite logits per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tomebench.datasets.classes import IMAGENET_21K, NUM_CLASSES
from tomebench.errors import DataError
from tomebench.runs.top1 import NO_PREDICTION
from tomebench.schema import MOST_CLASSES, CellPredictions, Chunk, ImageList
from tomebench.words import noun

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.datasets.loader import Batch

TOP = 5


def predict(
    models: Mapping[str, Callable[[Tensor], Tensor]],
    batch: Batch,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
) -> Chunk:
    """Run every cell on one batch and store its predictions.

    Args:
        models: cell key -> function from prepared images [B, 3, H, W] to logits [B, classes] of any floating dtype.
        batch: images and labels; only its first ``n_valid`` images count.
        prepare: from the images of the batch to the models' input, on their device.

    Returns:
        Predictions of every cell. Top-1 is the argmax of the fp32 logits, among equal ones the lowest class.
    """
    import torch

    # The batch is prepared outside: tensors made in inference mode are of another kind, for which a compiled pass would
    # be compiled again.
    images = prepare(batch.images)
    with torch.inference_mode():
        labels = batch.labels[: batch.n_valid].to(images.device)
        found = {key: _judge(model(images)[: batch.n_valid].float(), labels) for key, model in models.items()}
        return Chunk(batch.index, found, read=batch.read)


def _judge(logits: Tensor, labels: Tensor) -> CellPredictions:
    """Predictions from fp32 logits [n, classes] and labels int64 [n], or [n, k] padded with NO_LABEL."""
    import torch

    finite = logits.isfinite().all(dim=1)
    if labels.ndim == 1:
        in_top5 = (_rank(logits, labels.clamp(min=0)) < TOP) & (labels >= 0)
    else:  # column by column: all at once would take k times the memory of the logits
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
    """Rank [n] of the label's class when classes are sorted by (logit descending, class ascending).

    A sort or topk would leave the order of equal logits to the kernel.
    """
    import torch

    true = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > true) | ((logits == true) & earlier)).sum(dim=1)


def require_matching_head(num_classes: int, images: ImageList) -> None:
    """Refuse a model whose classification head has another number of classes than the labelled images.

    Args:
        num_classes: outputs of the classification head; 0 for a model without one.
        images: the data set.

    Raises:
        DataError: the numbers differ; the text says what would fit.
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
