"""Provenance of a run: digests of the code, model and images behind its numbers, checked before it is continued.

Every later session, fresh process and rank is checked by :func:`keep_made` or :func:`tomebench.identity.difference`,
and the evaluated images by :func:`check_unchanged`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

from tomebench.datasets.images import ImageSet
from tomebench.errors import DataError, RunError
from tomebench.identity import CODE, Difference, code_digest, decoding, difference, made_of
from tomebench.measure.testbed import arithmetic_of, cpu_model
from tomebench.models.create import LoadedModel
from tomebench.models.digest import layers_digest, tensors_digest
from tomebench.models.headed import Headed
from tomebench.models.hf_model import HFModel
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.learned import read_learned
from tomebench.reduction.registry import added_code
from tomebench.runs.origin import MADE
from tomebench.runs.store import Store
from tomebench.schema import ImageState, fingerprint

_SAMPLE = 16
"""Number of images, spread over the list, whose digests ranks compare before they begin."""


code_digest()  # at import: the digest of the code that is loaded, even if its files change later


def made_by(
    loaded: LoadedModel,
    device: torch.device,
    images: ImageSet | None,
    methods: Iterable[str] = (),
    predictors: Path | None = None,
) -> dict[str, str]:
    """Provenance of what a sweep is about to measure: digests of code, layers and weights, libraries, processor.

    Args:
        loaded: the model with its weights, in the dtype in which they run.
        device: that computes.
        images: to be evaluated; None if there are none.
        methods: their names; of those that other packages add the code is among the facts.
        predictors: weights of a trained method.
    """
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    # Random weights depend on the processor that draws them, and speed does not depend on the weights.
    drawn = images is None and loaded.weights.startswith("random:")
    weights, layers = loaded.weights if drawn else tensors_digest(loaded.model), layers_digest(loaded.model)
    arithmetic = arithmetic_of(device)
    made = made_of(weights, layers, images=images is not None, processor=processor, arithmetic=arithmetic)
    inner = loaded.model.model if isinstance(loaded.model, Headed) else loaded.model
    if isinstance(inner, HFModel):
        made |= {"transformers": metadata.version("transformers")}
    if images is not None and isinstance(pixels := getattr(inner, "preprocessing", None), Preprocessing):
        made |= {"image processor": fingerprint(dict(pixels.more))}
    learned = {} if predictors is None else {"predictors": read_learned(predictors).digest}
    return made | learned | added_code(methods)


def keep_made(store: Store, made: Mapping[str, str]) -> None:
    """Store the provenance of a run, or refuse to continue a run of other provenance.

    Raises:
        RunError: it differs, or an older version did not store it.
    """
    stored: Mapping[str, str] = store.get(MADE) or {}
    if store.has_results:  # a run may gain methods
        stored, made = {**_of_methods(made), **stored}, {**_of_methods(stored), **made}
        _refuse(store, difference(stored, made))
    if store.get(MADE) != dict(made):
        store.put(MADE, dict(made))


def _of_methods(made: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in made.items() if name.startswith("method ")}


def check_code(store: Store) -> None:
    """Refuse a run of other code or libraries, as :func:`keep_made` does, before a model is loaded.

    Raises:
        RunError: they differ.
    """
    _refuse(store, code_differences(store))


def code_differences(store: Store) -> Difference | None:
    """First difference between the code and libraries at hand and those that measured a run; None if there is none."""
    if not store.has_results:
        return None
    here = decoding() if store.config.get("data") is not None else {CODE: code_digest()}
    here |= added_code(str(store.config.get("method")).split(","))
    return difference({name: value for name, value in (store.get(MADE) or {}).items() if name in here}, here)


def _refuse(store: Store, found: Difference | None) -> None:
    if found is None:
        return
    if not store.get(MADE):
        raise RunError(
            f"{store.directory} was measured by an older version, which did not keep what its figures are made of; it "
            "can be reported, and measured anew with --out another folder"
        )
    raise RunError(
        f"{store.directory} was measured with another {found.name} ({found}), which could give other figures; use "
        "--out another folder, or go back to what it was"
    )


def sample_digests(images: ImageSet) -> dict[str, str]:
    """Digests of a few images, spread over the list, by the names that messages give them."""
    step = max(len(images) // _SAMPLE, 1)
    found = {}
    for index in range(0, len(images), step)[:_SAMPLE]:
        try:
            found[f"image {name_of(images, index)}"] = images.digest(index)
        except DataError:
            found[f"image {name_of(images, index)}"] = "unreadable"  # a sweep may leave it out
    return found


def check_unchanged(store: Store, images: ImageSet, batch_size: int, stop_if_asked: Callable[[], None]) -> None:
    """Check that the images a run was evaluated on are unchanged, so that no row mixes two data sets.

    Raises:
        RunError: an image has changed.
        DataError: an image is missing.
    """
    for chunk, states in store.read_states().items():
        stop_if_asked()
        if (index := unlike_here(images, batch_size, chunk, states)) is not None:
            raise changed(images, index)


def changed(images: ImageSet, index: int) -> RunError:
    """The error for an image whose bytes are not those that its run evaluated."""
    return RunError(
        f"image {name_of(images, index)} has changed since this run evaluated it; restore it, or use --out another "
        "folder"
    )


def unlike_here(images: ImageSet, batch_size: int, chunk: int, states: Sequence[ImageState]) -> int | None:
    """Index of the first image of an evaluated batch whose bytes differ here; None if all are equal.

    A file with unchanged state (disk, number, size, times of change) is not read.
    """
    for index, there in enumerate(states, chunk * batch_size):
        if images.state(index) != there.file and images.digest(index) != there.digest:
            return index
    return None


def name_of(images: ImageSet, index: int) -> str:
    """Name of an image in messages."""
    return repr(images.names[index]) if images.names else f"number {index}"
