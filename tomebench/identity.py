"""What a measurement was made of, and the one comparison that whoever adds to it goes through.

A run that goes on, a process that shares one, a cache and a second measurement of the gate add to what others have
measured. What they add belongs there only if it was made of the same: of the same code, model, images and libraries.
Names and versions say little about that; digests do.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

CODE, WEIGHTS, LAYERS = "code", "weights", "structure"
# Of "layers", as baselines of before call it, an unchanged model had another digest.
MODEL = (WEIGHTS, LAYERS)
"""Facts that make it another model, with whose figures nothing is compared."""
_ROOMS = ("backbones", "datasets", "measure", "models", "ranks", "reduction", "runs", "sweeps")
"""Folders of the package whose files make numbers; the others show and compare them."""
_MODULES = ("ambient.py", "identity.py", "regular.py", "rspec.py", "schema.py")
_LIBRARIES = ("torch", "torchvision", "timm", "numpy")
_CODECS = ("libjpeg_turbo", "zlib", "webp", "libtiff", "jpg_2000", "avif")
UNKNOWN = "unknown"


class Difference(NamedTuple):
    """The first thing in which two measurements are not made of the same."""

    name: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} {self.there} -> {self.here}"


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> Difference | None:
    """The first fact in which two descriptions differ; one that either lacks differs, too. None: the same.

    Args:
        there: what is to be added to: :func:`made_of`, as it was kept.
        here: what would be added.
    """
    for name in dict.fromkeys([*here, *there]):
        before, now = there.get(name, UNKNOWN), here.get(name, UNKNOWN)
        if before != now:
            return Difference(name, before, now)
    return None


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """All facts that two descriptions have and in which they differ; what one of them does not say is left out."""
    both = ((name, before, here[name]) for name, before in there.items() if name in here)
    return [Difference(*each) for each in both if each[1] != each[2]]


def made_of(weights: str, layers: str, *, images: bool, processor: str, arithmetic: str) -> dict[str, str]:
    """What decides the figures of a measurement besides its settings and its images.

    Args:
        weights: digest of the tensors that were loaded; of random ones that answer no image, how they were drawn.
        layers: digest of what the model does with them.
        images: some are decoded and counted; where none are, libraries and processor change speeds only.
        processor: name of the CPU or GPU that computes.
        arithmetic: which of its instructions are used, as far as that can be told.
    """
    made = {CODE: code_digest(), WEIGHTS: weights, LAYERS: layers}
    return made | decoding() | {"processor": processor, "arithmetic": arithmetic} if images else made


def decoding() -> dict[str, str]:
    """What decides the pixels that come of an image's bytes, besides the preprocessing: code and libraries."""
    return {CODE: code_digest(), **{name: _version(name) for name in _LIBRARIES}, "Pillow": _pillow()}


@functools.cache
def code_digest(package: Path = Path(__file__).parent) -> str:
    """Sixteen hex digits of the files that make numbers: which code this is, whatever version or commit it is called.

    Args:
        package: folder of the package.
    """
    files = [path for room in _ROOMS for path in (package / room).rglob("*") if _is_source(path.relative_to(package))]
    found = hashlib.sha256()
    for path in sorted([*files, *(package / name for name in _MODULES)]):
        if path.is_file():
            content = path.read_bytes().replace(b"\r\n", b"\n")  # as some checkouts have it
            found.update(path.relative_to(package).as_posix().encode() + b"\0" + content + b"\0")
    return found.hexdigest()[:16]


def _is_source(path: Path) -> bool:
    """A file that is imported or read; not what editors leave beside it."""
    return path.suffix in (".py", ".txt", ".csv") and not any(part.startswith(".") for part in path.parts)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return UNKNOWN


@functools.cache
def _pillow() -> str:
    """Versions of Pillow and of the libraries that decode for it."""
    import PIL
    from PIL import features

    codecs = [f"{name} {found}" for name in _CODECS if (found := features.version(name))]
    return " ".join([str(PIL.__version__), *codecs])
