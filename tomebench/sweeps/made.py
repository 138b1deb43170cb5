"""What the figures of a run are made of: kept with its first ones, and compared by whoever goes on with it.

Another session, a fresh process and a rank go through :func:`keep_made` or :func:`tomebench.identity.difference`, and
the images that were evaluated through :func:`check_unchanged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from tomebench.datasets.images import ImageSet
from tomebench.errors import DataError, RunError
from tomebench.identity import CODE, Difference, code_digest, decoding, difference, made_of
from tomebench.measure.testbed import arithmetic_of, cpu_model
from tomebench.models.create import LoadedModel
from tomebench.models.digest import layers_digest, tensors_digest
from tomebench.runs.origin import MADE
from tomebench.runs.store import Store
from tomebench.schema import ImageState

_SAMPLE = 16
"""Images, spread over the list, by which ranks find out before they begin that their files differ."""


code_digest()  # now: of the code that is loaded, whatever becomes of its files


def made_by(loaded: LoadedModel, device: torch.device, images: ImageSet | None) -> dict[str, str]:
    """What a sweep of a model would make its figures of.

    Args:
        loaded: the model with its weights, in the dtype that they are run in.
        device: that computes.
        images: None: none are evaluated.
    """
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    # How random tensors come out depends on the processor, and no speed on how they do.
    drawn = images is None and loaded.weights.startswith("random:")
    weights, layers = loaded.weights if drawn else tensors_digest(loaded.model), layers_digest(loaded.model)
    return made_of(weights, layers, images=images is not None, processor=processor, arithmetic=arithmetic_of(device))


def keep_made(store: Store, made: Mapping[str, str]) -> None:
    """Keep what a run is made of, or refuse to add to one that is made of something else.

    Raises:
        RunError: it is, or it was stored before that was kept.
    """
    _refuse(store, difference(store.get(MADE) or {}, made) if store.has_results else None)
    if store.get(MADE) != dict(made):
        store.put(MADE, dict(made))


def check_code(store: Store) -> None:
    """What :func:`keep_made` refuses for its code or libraries, before a model is loaded.

    Raises:
        RunError: as there.
    """
    _refuse(store, code_differences(store))


def code_differences(store: Store) -> Difference | None:
    """The first of the code and libraries at hand that is not what a run's figures were made by."""
    if not store.has_results:
        return None
    here = decoding() if store.config.get("data") is not None else {CODE: code_digest()}
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
    """Digests of a few images, spread over the list, as they are stored here, by what a message calls them."""
    step = max(len(images) // _SAMPLE, 1)
    found = {}
    for index in range(0, len(images), step)[:_SAMPLE]:
        try:
            found[f"image {name_of(images, index)}"] = images.digest(index)
        except DataError:
            found[f"image {name_of(images, index)}"] = "unreadable"  # which a sweep may leave out
    return found


def check_unchanged(store: Store, images: ImageSet, batch_size: int, stop_if_asked: Callable[[], None]) -> None:
    """See that the images that a run was evaluated on are what they were, so that no row is made of two data sets.

    Raises:
        RunError: one has changed.
        DataError: one is gone.
    """
    for chunk, states in store.read_states().items():
        stop_if_asked()
        if (index := unlike_here(images, batch_size, chunk, states)) is not None:
            raise changed(images, index)


def changed(images: ImageSet, index: int) -> RunError:
    """The error for an image that is not what it was when others of its run were evaluated."""
    return RunError(
        f"image {name_of(images, index)} has changed since this run evaluated it; restore it, or use --out another "
        "folder"
    )


def unlike_here(images: ImageSet, batch_size: int, chunk: int, states: Sequence[ImageState]) -> int | None:
    """Index of the first image of a batch, evaluated before or elsewhere, that is another one here; None: all are here.

    A file that is the same file is not read.
    """
    for index, there in enumerate(states, chunk * batch_size):
        if images.state(index) != there.file and images.digest(index) != there.digest:
            return index
    return None


def name_of(images: ImageSet, index: int) -> str:
    """What messages call an image."""
    return repr(images.names[index]) if images.names else f"number {index}"
