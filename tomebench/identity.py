"""Digests of what a measurement was made with (code, model, libraries, processor), and their comparison.

A run that is continued, a process that shares one, a cache and the gate's second measurement all add to earlier
results. They may do so only if code, model, images and libraries are the same; digests tell, names and versions do not.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

CODE, WEIGHTS, LAYERS = "code", "weights", "structure"
# Not "layers": older baselines have another digest of an unchanged model under that name.
MODEL = (WEIGHTS, LAYERS)
"""Facts that identify the model; figures are never compared between models."""
_ROOMS = ("backbones", "datasets", "measure", "models", "ranks", "reduction", "runs", "sweeps")
"""Folders of the package whose code decides measured values; the others show and compare them."""
_MODULES = ("ambient.py", "identity.py", "regular.py", "rspec.py", "schema.py")
_LIBRARIES = ("torch", "torchvision", "timm", "numpy")
_CODECS = ("libjpeg_turbo", "zlib", "webp", "libtiff", "jpg_2000", "avif")
UNKNOWN = "unknown"


class Difference(NamedTuple):
    """A fact in which two measurements differ, with both values."""

    name: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} {self.there} -> {self.here}"


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> Difference | None:
    """The first fact in which two measurements differ, or that one of them lacks; None if all are equal.

    Args:
        there: stored result of :func:`made_of`, of the measurement that is to be added to.
        here: that of the measurement to add.
    """
    for name in dict.fromkeys([*here, *there]):
        before, now = there.get(name, UNKNOWN), here.get(name, UNKNOWN)
        if before != now:
            return Difference(name, before, now)
    return None


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """All facts in which two measurements differ; facts that one of them lacks are left out."""
    both = ((name, before, here[name]) for name, before in there.items() if name in here)
    return [Difference(*each) for each in both if each[1] != each[2]]


def made_of(weights: str, layers: str, *, images: bool, processor: str, arithmetic: str) -> dict[str, str]:
    """The facts that decide the figures of a measurement besides its settings and images: name to digest or version.

    Args:
        weights: digest of the tensors that were loaded; of random ones without images, how they were drawn.
        layers: digest of the model's layers and their code.
        images: images are evaluated; otherwise libraries and processor affect speeds only, and are left out.
        processor: name of the CPU or GPU that computes.
        arithmetic: which of its instructions are used, as far as that can be told.
    """
    made = {CODE: code_digest(), WEIGHTS: weights, LAYERS: layers}
    return made | decoding() | {"processor": processor, "arithmetic": arithmetic} if images else made


def decoding() -> dict[str, str]:
    """The facts that decide the pixels decoded from an image's bytes, besides preprocessing: code and libraries."""
    return {CODE: code_digest(), **{name: _version(name) for name in _LIBRARIES}, "Pillow": _pillow()}


@functools.cache
def code_digest(package: Path = Path(__file__).parent) -> str:
    """Digest of the package's code that decides measured values, whatever its version or commit: 16 hex digits.

    Args:
        package: folder of the package.
    """
    files = [path for room in _ROOMS for path in (package / room).rglob("*") if _is_source(path.relative_to(package))]
    return source_digest(package, [*files, *(package / name for name in _MODULES)])


def source_digest(folder: Path, files: Iterable[Path]) -> str:
    """Digest of source files by their paths in a folder, 16 hex digits; a file that is not there is left out."""
    found = hashlib.sha256()
    for path in sorted(files):
        if path.is_file():
            content = path.read_bytes().replace(b"\r\n", b"\n")  # as some checkouts have it
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + content + b"\0")
    return found.hexdigest()[:16]


def _is_source(path: Path) -> bool:
    """Whether a file is code or data of the package, and no hidden file of an editor."""
    return path.suffix in (".py", ".txt", ".csv") and not any(part.startswith(".") for part in path.parts)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return UNKNOWN


@functools.cache
def _pillow() -> str:
    """Versions of Pillow and of the codec libraries that it uses."""
    import PIL
    from PIL import features

    codecs = [f"{name} {found}" for name in _CODECS if (found := features.version(name))]
    return " ".join([str(PIL.__version__), *codecs])
