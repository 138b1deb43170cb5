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
from tomebench.datasets.classes import TO_FIT
from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batch_count
from tomebench.errors import ConfigError, DataError, Interrupted, ModelError
from tomebench.extras import is_installed
from tomebench.measure.device import arithmetic, resolve_device
from tomebench.models.create import LoadedModel, load_model
from tomebench.models.head_files import FEATURES, FITTED_ON, LABELS, MOST_NEIGHBOURS, OFFSET, WEIGHT
from tomebench.models.headed import features_digest, remove_class_head
from tomebench.runs.settings import default, flag
from tomebench.schema import NO_LABEL
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.failures import no_room_is_an_input_error
from tomebench.sweeps.inputs import Reading, list_images, preprocessing_of, usable_images
from tomebench.words import counted

HeadKind = Literal["knn", "linear"]
_BATCH = 32
"""Images of a pass where the batch size is ``auto``."""
_ITERATIONS = 1000
"""Most iterations of L-BFGS."""
_NEVER = -1e4
"""Bias of a class without images, below all logits of the others."""


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


def fit_head(fit: Fit, config: SweepConfig, should_stop: Callable[[], bool]) -> Generator[Event, None, Fitted]:
    """Compute the features of labelled images by a model with all tokens, in fp32, and fit a head on them.

    Args:
        fit: what to fit.
        config: model, images and device; of the images ``limit`` and ``seed`` choose some. What is about timing and
            merging plays no part.
        should_stop: asked between two batches.

    Yields:
        Events.

    Returns:
        The head; its classes are those that the images have.

    Raises:
        InputError: the model, images or device cannot be used as asked, scikit-learn is needed and not installed, or
            there is too little to fit on.
        Interrupted: ``should_stop()`` became true; nothing is kept.
    """
    if config.data is None or not config.labels:
        raise ConfigError("a class head is fitted on labelled images; add --data, and no --no-labels")
    for name in ("class_head", "dtype", "mode", "real"):
        if getattr(config, name) != default(name):
            raise ConfigError(f"fit-head fits a class head in fp32, on one class of each image; drop {flag(name)}")
    if fit.kind == "linear" and not is_installed("sklearn"):
        raise ConfigError("a linear probe needs the scikit-learn library; pip install 'tomebench[probe]'")
    device = resolve_device(config.device, config.dtype)
    images = _images(config, fit)
    with usual_state(), arithmetic("fp32", config.threads), no_room_is_an_input_error():
        yield Phase("load", None)
        loaded = load_model(config.model_spec, pretrained=True)
        yield from map(Note, loaded.notes)
        images = usable_images(config, images, lambda: _check(should_stop))
        features, digests = yield from _features(loaded, config, images, device, should_stop)
        present, numbers = np.unique(images.info.labels, return_inverse=True)
        names, own = images.info.class_names, list(range(int(present[-1]) + 1))
        if names and tuple(names[number] for number in own) != tuple(map(str, own)):
            classes = [names[number] for number in present]
        else:  # classes that are numbers stay numbers
            classes, numbers = list(map(str, own)), images.info.labels
        about: dict[str, Any] = {"head": fit.kind, "classes": classes}
        labels = np.asarray(numbers, dtype=np.int64)
        if fit.kind == "knn":
            tensors = {FEATURES: features, LABELS: torch.from_numpy(labels)}
            about |= {"k": fit.k, "temperature": fit.temperature}
        else:
            yield Note(f"fitting {counted(len(present), 'class')} on {counted(features.shape[1], 'channel')}")
            weight, bias, converged = _logistic_regression(features, labels, len(classes), fit.c)
            tensors = {WEIGHT: weight, OFFSET: bias}
            about |= {"c": fit.c, "converged": converged}
            if not converged:
                yield Note(f"L-BFGS has not converged in {_ITERATIONS} iterations; a smaller --c converges sooner")
    _check(should_stop)
    tensors[FITTED_ON] = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).reshape(len(digests), -1)
    weights = features_digest(loaded.model.cpu())
    about |= {"model": loaded.timm_id, "weights": weights, "images": images.info.name, "n": len(images)}
    return Fitted(tensors, about | ({"note": images.info.note} if images.info.note else {}))


def _images(config: SweepConfig, fit: Fit) -> ImageSet:
    """The images to fit on, as they are listed.

    Raises:
        InputError: there are too few, or of one class, or some have no class or several.
    """
    images = list_images(config, TO_FIT)
    labels = images.info.labels
    if labels.ndim != 1 or bool((labels == NO_LABEL).any()):
        raise DataError(f"{images.info.name}: not every image has one class; give images in folders of their classes")
    whole = (
        labels if config.limit is None else list_images(config.model_copy(update={"limit": None}), TO_FIT).info.labels
    )
    if (classes := len(np.unique(whole))) < 2:
        raise DataError(f"{images.info.name} has one class only; give images of two classes or more")
    if len(images) < classes:
        raise ConfigError(f"--limit {config.limit}: that is less than an image of each of {classes} classes; give more")
    if fit.kind == "knn" and fit.k > (most := min(len(images), MOST_NEIGHBOURS)):
        raise ConfigError(f"--k {fit.k}: at most {most} of {counted(len(images), 'image')} can vote; give fewer")
    return images


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped between two batches; nothing is kept")


def _features(
    loaded: LoadedModel, config: SweepConfig, images: ImageSet, device: torch.device, should_stop: Callable[[], bool]
) -> Generator[Event, None, tuple[Tensor, list[bytes]]]:
    """Features of all images, float32 [n, D], and digests of the images."""
    remove_class_head(loaded.model)
    model = loaded.model.to(device).eval()
    batch_size = min(config.batch_size if isinstance(config.batch_size, int) else _BATCH, len(images))
    reading = Reading(config, images, preprocessing_of(config, model), batch_size, device)
    found: list[Tensor] = []
    digests: list[bytes] = []
    told = 0
    yield Phase("features", float(len(images)))
    for batch in reading.batches(range(batch_count(len(images), batch_size))):
        _check(should_stop)
        with torch.inference_mode():
            features = model(reading.prepare(batch.images))
        if features.ndim != 2:
            raise ModelError(f"{loaded.timm_id} pools nothing, so that an image has no one feature; give one that does")
        found.append(features[: batch.n_valid].float().cpu())
        digests += [bytes.fromhex(state.digest) for state in batch.read]
        yield Progress("features", float(len(digests)), float(len(images)), "images", "")
        yield from map(Note, reading.troubles[told:])
        told = len(reading.troubles)
    whole = torch.cat(found)
    if not bool(torch.isfinite(whole).all()):
        raise ModelError(f"{loaded.timm_id}: the features of an image are no numbers; check its weights")
    return whole, digests


def _logistic_regression(
    features: Tensor, labels: np.ndarray[Any, Any], classes: int, c: float
) -> tuple[Tensor, Tensor, bool]:
    """Weight [classes, D], bias [classes] and whether the fit has converged, by scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(features.double().numpy(), labels)
    own_weight, own_bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(fitted.classes_) == 2:  # one row, for the second class
        own_weight, own_bias = (torch.cat([torch.zeros_like(each), each]) for each in (own_weight, own_bias))
    weight, bias = torch.zeros(classes, features.shape[1]), torch.full((classes,), _NEVER)
    present = torch.from_numpy(fitted.classes_)
    weight[present], bias[present] = own_weight, own_bias
    return weight, bias, not any(issubclass(each.category, ConvergenceWarning) for each in caught)
