"""Models named by location, ``hf-hub:ORG/NAME`` and ``local-dir:PATH``: find the ``config.json`` that timm saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import logging as hub_logging
from torch import nn

from tomebench.datasets.class_lists import CONFIG, lists_in_config
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.datasets.files import user_path
from tomebench.errors import ModelError
from tomebench.models.weights_file import short
from tomebench.regular import read_bytes

HUB, FOLDER = "hf-hub:", "local-dir:"
_LARGEST = 16 * 2**20
"""Largest ``config.json`` that is read, in bytes."""
_OLD_HUB = "hf_hub:"


@dataclass(frozen=True)
class Source:
    """A timm model at a location, described by its ``config.json``."""

    name: str  # as timm takes it
    architecture: str
    config: Path  # its settings
    weights: Path | None = None  # the folder with its weights; None: timm fetches them

    def names(self) -> list[ClassNames]:
        """Read every list of class names in ``config.json``.

        Raises:
            DataError: one is no list of names.
        """
        return lists_in_config(self.config)

    def create(self, **kwargs: Any) -> nn.Module:
        """Build the model with random weights."""
        with quiet_hub(False):
            model: nn.Module = timm.create_model(self.name, **kwargs)
        return model


def located_name(name: str) -> str | None:
    """A name with a location, in timm's current spelling (``hf-hub:``, ``local-dir:``); None for any other name."""
    name = HUB + name.removeprefix(_OLD_HUB) if name.startswith(_OLD_HUB) else name
    return name if name.startswith((HUB, FOLDER)) else None


def source_of(name: str, offline: bool = False) -> Source | None:
    """Find the model of a name with a location, None for any other name; fetches ``config.json`` if it is not cached.

    Raises:
        ModelError: it is not there, cannot be fetched, or is no model that timm saved.
    """
    if (located := located_name(name)) is None:
        return None
    name = located
    if name.startswith(FOLDER):
        folder = user_path(name.removeprefix(FOLDER))
        if not (folder / CONFIG).is_file():
            raise ModelError(
                f"--model {printable(name)}: there is no {CONFIG} in {printable(folder)}; give a folder that timm "
                "saved a model in, or --model NAME with --checkpoint FILE"
            )
        return Source(FOLDER + str(folder), _architecture(folder / CONFIG, name), folder / CONFIG, folder)
    config = _fetched_config(name, offline)
    return Source(name, _architecture(config, name), config)


def split_hub_id(name: str) -> tuple[str, str | None]:
    """Repository and revision of ``hf-hub:ORG/NAME@REVISION``."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    return repository, revision or None


def not_cached(file: str, repository: str, offline: bool) -> ModelError:
    """The error for a file that is not in the local cache when the network must not be used."""
    asked = "--offline" if offline else "HF_HUB_OFFLINE"
    return ModelError(
        f"{asked}: {file} of {printable(repository)} is not in the local cache ({constants.HF_HUB_CACHE}); "
        "download it beforehand or pass a file with --checkpoint"
    )


@contextmanager
def quiet_hub(offline: bool) -> Iterator[None]:
    """Context in which huggingface_hub logs nothing (its errors are reported once), and with ``offline`` is offline."""
    verbosity, mode = hub_logging.get_verbosity(), constants.HF_HUB_OFFLINE
    hub_logging.set_verbosity_error()
    constants.HF_HUB_OFFLINE = mode or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = mode
        hub_logging.set_verbosity(verbosity)


def _fetched_config(name: str, offline: bool) -> Path:
    repository, revision = split_hub_id(name)
    try:
        cached = try_to_load_from_cache(repository, CONFIG, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        if offline or constants.HF_HUB_OFFLINE:
            raise not_cached(CONFIG, repository, offline)
        with quiet_hub(False):
            return Path(hf_hub_download(repository, CONFIG, revision=revision))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ModelError(
            f"--model {printable(name)}: its {CONFIG} cannot be fetched ({short(error)}); check the name, or give a "
            "folder with --model local-dir:PATH"
        ) from error


def _architecture(config: Path, name: str) -> str:
    """Name of the timm architecture in a ``config.json``; ModelError if it is none that this timm has."""
    try:
        content = json.loads(read_bytes(str(config), most=_LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"--model {printable(name)}: {CONFIG} cannot be read ({short(error)}); save it again"
        ) from error
    architecture = content.get("architecture") if isinstance(content, dict) else None
    if not isinstance(architecture, str):
        others = content.get("architectures") if isinstance(content, dict) else None
        what = (
            f"is one of transformers ({', '.join(map(str, others))[:80]})"
            if isinstance(others, list)
            else "names no architecture"
        )
        raise ModelError(
            f"--model {printable(name)}: its {CONFIG} {what}; of transformers' models give --model hf/FOLDER or "
            "hf/ORG/NAME, others through --model NAME with --checkpoint FILE"
        )
    if not timm.is_model(architecture):
        raise ModelError(f"--model {printable(name)}: this version of timm has no {printable(architecture)}; update it")
    return architecture
