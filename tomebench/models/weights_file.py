"""Read files of tensors (safetensors or pickles, whole or in shards), recognised by content, not by name.

A pickle is read without running code in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.regular import read_bytes

_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
_LARGEST_HEADER = 16 * 2**20
_ZIP = b"PK\x03\x04"
_BLOCKED = re.compile(r"\bGLOBAL (\S+)")
"""Finds, in torch's error, the class or function that a pickle wants to import and that is no part of weights."""


def find_weights(path: Path) -> Path:
    """Find the weights file of a path: the path itself, or the one in a folder that timm or transformers saved.

    Raises:
        ModelError: no such file or folder, or a folder with none or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"checkpoint {printable(path)}: no such file; give the path of a file or folder of weights")
    for name in (*_INDICES, *_SINGLE):
        if (path / name).is_file():
            return path / name
    shown = (each for each in path.iterdir() if not each.name.startswith("."))
    there = sorted(each for each in shown if each.suffix in _ENDINGS and each.is_file())
    if len(there) == 1:
        return there[0]
    names = ", ".join(printable(each.name) for each in there[:3]) or "none"
    raise ModelError(
        f"checkpoint {printable(path)}: no such file as {_SINGLE[0]} in this folder, which holds {names}; give the file"
    )


def read_content(path: Path) -> Any:
    """Read the content of a weights file: a dictionary of tensors, or whatever its training code saved.

    Raises:
        ModelError: it cannot be read, is damaged, or would have to run code.
    """
    try:
        if path.stat().st_size == 0:
            raise ModelError(f"checkpoint {printable(path)}: cannot be read, it is empty; fetch it again")
        return _content(path)
    except SafetensorError as error:
        raise ModelError(f"checkpoint {printable(path)}: not a readable safetensors file ({short(error)})") from error
    except pickle.UnpicklingError as error:
        blocked = _BLOCKED.search(str(error))
        what = "damaged, or holds more than weights" if blocked is None else f"holds {printable(blocked[1])}, no weight"
        raise ModelError(
            f"checkpoint {printable(path)}: {what}, and running code from a file is refused; save its state_dict as "
            ".safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"checkpoint {printable(path)}: cannot be read ({short(error)})") from error


def stamp(path: Path) -> list[tuple[int, ...]]:
    """(Device, inode, size, modification and change time) of each file of some weights, to notice a change."""
    found = (part.stat() for part in _parts(path))
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]


def digest(path: Path) -> str:
    """``sha256:<16 hex digits>`` of a file, or of all shards that an index names."""
    whole = hashlib.sha256()
    parts = _parts(path)
    for part in parts:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
        if len(parts) == 1:
            return f"sha256:{found.hexdigest()[:16]}"
        whole.update(found.digest())
    return f"sha256:{whole.hexdigest()[:16]}"


def short(error: BaseException) -> str:
    """An error's text in one line of at most 120 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _parts(path: Path) -> list[Path]:
    return [path, *_shards(path)] if _is_index(path) else [path]


def _content(path: Path) -> Any:
    if _is_index(path):
        tensors: dict[str, Any] = {}
        for shard in _shards(path):
            content = _content(shard)
            if not isinstance(content, dict):
                raise ModelError(f"checkpoint {printable(shard)}: holds no tensors; fetch it again")
            if twice := tensors.keys() & content.keys():
                name = printable(min(map(str, twice)))
                raise ModelError(
                    f"checkpoint {printable(path)}: its shard {printable(shard.name)} holds {name}, and one before it "
                    "does, too; fetch them again"
                )
            tensors |= content
        return tensors
    if _is_safetensors(path):
        if _LARGEST_HEADER < (size := int.from_bytes(_start(path)[:8], "little")) <= path.stat().st_size:
            raise ModelError(
                f"checkpoint {printable(path)}: its header says {size} bytes, which the names of no model's tensors "
                "take; fetch it again"
            )
        # load_file maps the file into memory, and takes no name that is not valid UTF-8.
        return load_file(path) if _is_utf8(path) else load(path.read_bytes())
    return _unpickled(path)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors: a length of eight bytes, then a JSON object; a damaged file goes by its name."""
    start = _start(path)
    return (start[8:9] == b"{" and start[6:8] == b"\0\0") or (path.suffix == ".safetensors" and start[:4] != _ZIP)


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")


def shard_names(index: Path) -> list[str]:
    """Names of the shard files that an index names, each in the folder of the index.

    Raises:
        ModelError: it is no index, or names what is no file beside it.
    """
    try:
        content = json.loads(read_bytes(str(index), most=_LARGEST_HEADER))
        names = sorted({*content["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"checkpoint {printable(index)}: not an index of shards ({short(error)}); fetch it again"
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(".index.json"):
            raise ModelError(
                f"checkpoint {printable(index)}: names {printable(str(name))[:200]!r}, which is no file beside it"
            )
        if not _is_there(index.parent / name):
            raise ModelError(f"checkpoint {printable(index)}: its shard {printable(name)[:200]} is not there; fetch it")
    return names


def _shards(index: Path) -> list[Path]:
    return [index.parent / name for name in shard_names(index)]


def _is_there(path: Path) -> bool:
    """Whether a file exists; False for a name that the file system refuses."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _unpickled(path: Path) -> Any:
    """Unpickle a file without running code in it.

    Raises:
        pickle.UnpicklingError: it is damaged, or would need to run code.
        OSError, RuntimeError: it cannot be read.
    """
    # Training scripts save their arguments as a Namespace beside the weights; loading one runs no code.
    safe = torch.serialization.safe_globals([argparse.Namespace])
    with warnings.catch_warnings(), safe:  # torch warns of odd pickles, which the caller reports once
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, MemoryError):
            raise
        except Exception as error:
            raise pickle.UnpicklingError(str(error)) from error


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
