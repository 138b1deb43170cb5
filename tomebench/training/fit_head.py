"""Fit a class head on the image features of a model that has none, or another: k nearest neighbours, linear probe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tomebench.ambient import usual_state
from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batches
from tomebench.datasets.workers import default_workers
from tomebench.errors import ConfigError, DataError, Interrupted, ModelError
from tomebench.extras import is_installed
from tomebench.measure.cgroup import usable_cpus
from tomebench.measure.device import arithmetic
from tomebench.models.create import LoadedModel
from tomebench.models.head_files import FEATURES, FITTED_ON, LABELS, OFFSET, WEIGHT
from tomebench.models.headed import remove_class_head
from tomebench.models.preprocess import Preprocessing
from tomebench.schema import NO_LABEL
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.words import counted

HeadKind = Literal["knn", "linear"]
_ITERATIONS = 1000
"""Most iterations of L-BFGS."""


@dataclass(frozen=True)
class Fit:
    """What to fit."""

    kind: HeadKind
    k: int = 20  # neighbours that vote
    temperature: float = 0.07  # of their votes
    c: float = 0.316  # inverse of the strength of L2 regularisation (Radford et al., 2021, for CLIP's ViT)


@dataclass(frozen=True)
class Fitted:
    """A class head, as :func:`tomebench.models.head_files.write_head` takes it."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]


def fit_head(
    fit: Fit,
    loaded: LoadedModel,
    images: ImageSet,
    device: torch.device,
    should_stop: Callable[[], bool],
    *,
    img_size: int | None = None,
    batch_size: int = 32,
    workers: int | None = None,
) -> Generator[Event, None, Fitted]:
    """Compute the features of labelled images by the model with all tokens, in fp32, and fit a head on them.

    Args:
        fit: what to fit.
        loaded: the model; loses its class head and moves to the device.
        images: labelled images.
        device: where features are computed.
        should_stop: asked before every batch.
        img_size: input height and width in pixels; None: the model's own.
        batch_size: images of a pass.
        workers: processes that decode; None: by the number of images and CPUs.

    Yields:
        Events.

    Returns:
        The head; its classes are those that the images have.

    Raises:
        ConfigError: scikit-learn is needed and not installed, or k is larger than the number of images.
        DataError: an image cannot be decoded, or there are fewer than two classes.
        ModelError: a feature is no number.
        Interrupted: ``should_stop()`` became true; nothing is kept.
    """
    if fit.kind == "linear" and not is_installed("sklearn"):
        raise ConfigError("a linear probe needs the scikit-learn library; pip install 'tomebench[probe]'")
    if fit.kind == "knn" and fit.k > len(images):
        raise ConfigError(f"--k {fit.k}: there are {counted(len(images), 'image')} to vote; give fewer, or more images")
    labels = images.info.labels
    if labels.ndim != 1 or bool((labels == NO_LABEL).any()):
        raise DataError(f"{images.info.name}: not every image has one class; give images in folders of their classes")
    present, numbers = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise DataError(f"{images.info.name} has one class only; give images of two classes or more")
    with usual_state(), arithmetic("fp32", None):
        features, digests = yield from _features(loaded, images, device, should_stop, img_size, batch_size, workers)
    names = images.info.class_names or [str(number) for number in range(images.info.num_classes)]
    about: dict[str, Any] = {"head": fit.kind, "classes": [names[number] for number in present]}
    tensors = {FITTED_ON: torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).reshape(len(images), -1)}
    if fit.kind == "knn":
        tensors |= {FEATURES: features, LABELS: torch.from_numpy(numbers.astype(np.int64))}
        about |= {"k": fit.k, "temperature": fit.temperature}
    else:
        yield Note(f"fitting {counted(len(present), 'class')} on {features.shape[1]} channels")
        weight, bias, converged = _logistic_regression(features, numbers, fit.c)
        tensors |= {WEIGHT: weight, OFFSET: bias}
        about |= {"c": fit.c, "converged": converged}
        if not converged:
            yield Note(f"L-BFGS has not converged in {_ITERATIONS} iterations; a smaller --c converges sooner")
    about |= {"model": loaded.timm_id, "weights": loaded.weights, "images": images.info.name, "n": len(images)}
    return Fitted(tensors, about | ({"note": images.info.note} if images.info.note else {}))


def _features(
    loaded: LoadedModel,
    images: ImageSet,
    device: torch.device,
    should_stop: Callable[[], bool],
    img_size: int | None,
    batch_size: int,
    workers: int | None,
) -> Generator[Event, None, tuple[Tensor, list[bytes]]]:
    """Features of all images, float32 [n, D], and digests of the images."""
    remove_class_head(loaded.model)
    model = loaded.model.to(device).eval()
    preprocessing = Preprocessing.from_model(model, img_size)
    workers = default_workers(len(images), usable_cpus()) if workers is None else workers
    read = batches(
        images,
        preprocessing.transform(),
        min(batch_size, len(images)),
        workers=workers,
        pin=device.type == "cuda",
        bytes_per_image=preprocessing.bytes_per_image,
    )
    found: list[Tensor] = []
    digests: list[bytes] = []
    yield Phase("features", float(len(images)))
    for batch in read:
        if should_stop():
            raise Interrupted("stopped between two batches; nothing is kept")
        with torch.inference_mode():
            features = model(preprocessing.normalise(batch.images.to(device)))
        found.append(features[: batch.n_valid].float().cpu())
        digests += [bytes.fromhex(state.digest) for state in batch.read]
        yield Progress("features", float(len(digests)), float(len(images)), "images", "")
    whole = torch.cat(found)
    if not bool(torch.isfinite(whole).all()):
        raise ModelError(f"{loaded.timm_id}: the features of an image are no numbers; check its weights")
    return whole, digests


def _logistic_regression(features: Tensor, labels: np.ndarray[Any, Any], c: float) -> tuple[Tensor, Tensor, bool]:
    """Weight [classes, D], bias [classes] and whether the fit has converged, by scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(features.double().numpy(), labels)
    weight, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(fitted.classes_) == 2:  # one row, for the second class
        weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    return weight, bias, not any(issubclass(each.category, ConvergenceWarning) for each in caught)
