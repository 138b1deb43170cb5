"""Open a Hugging Face data set as a table: never stale, and never with files from outside of the data set."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tomebench.datasets.classes import few
from tomebench.datasets.decode import printable
from tomebench.datasets.files import bytes_digest, file_stamp, user_path
from tomebench.errors import DataError
from tomebench.extras import is_installed

IMAGE, LABEL = "image", "label"
_SPLITS = ("validation", "val", "test")
_KEPT = 7 * 24 * 3600
"""Seconds after its last use after which the cached table of an earlier state of a folder is deleted."""


def open_table(name: str, *, offline: bool = False) -> tuple[str, Any, str]:
    """Open a data set: (name of the split, timm's reader, digest of the state of a folder's files; empty for the hub).

    Raises:
        DataError: the library is not installed, or the data set is not there, or has no images or files elsewhere.
    """
    if not is_installed("datasets"):  # checked before timm is asked, which prints that it is missing
        raise DataError(f"--data hfds/{printable(name)} needs the datasets library; pip install 'tomebench[hf]'")
    from timm.data.readers import create_reader

    path = str(user_path(name)) if name.startswith("~") else name
    if not Path(path).exists() and (path.startswith(("/", ".")) or path.count("/") > 1):
        raise DataError(
            f"--data hfds/{printable(name)}: no such folder; give hfds/FOLDER, or hfds/OWNER/NAME on the hub"
        )
    with _one_line(name), _quiet(offline):
        import datasets

        state, cache = "", None
        if Path(path).exists():
            files = _files_of(name, path)
            state = _state(files)
            cache = _cache_of(path, state)
        available = list(datasets.get_dataset_split_names(path, cache_dir=cache))
        split = next((split for split in _SPLITS if split in available), None)
        if split is None:
            raise DataError(
                f"--data hfds/{printable(name)} has only the split {few(available)}; expected validation or test "
                "(of parquet files: named validation-*.parquet)"
            )
        reader = create_reader(f"hfds/{path}", root=cache, split=split)
        if state and _state(files) != state:
            raise DataError(f"--data hfds/{printable(name)} changed while it was read; run the same command again")
    if reader.dataset.data.column(IMAGE).null_count == len(reader) > 0:  # timm fills in a missing column with nulls
        raise DataError(
            f"--data hfds/{printable(name)} has no images in a column {IMAGE}; name its columns {IMAGE} and {LABEL}"
        )
    return split, reader, state


def _files_of(name: str, folder: str) -> list[str]:
    """The files that the data set in a folder is made of: data files and settings.

    Raises:
        DataError: the settings name files outside of it, such as a README with ``data_files: /home/*``.
    """
    import datasets

    config = datasets.config
    settings = (config.REPOCARD_FILENAME, config.REPOYAML_FILENAME, config.DATASETDICT_INFOS_FILENAME)
    found = [os.path.realpath(f"{folder}/{each}") for each in settings]
    folders = roots(name)
    for files in (datasets.load_dataset_builder(folder, cache_dir=_tables()).config.data_files or {}).values():
        for file in map(str, files):
            if not inside(file, folders):
                raise DataError(
                    f"--data hfds/{printable(name)}: its settings name {printable(file)}, which lies outside of the "
                    "data set; take that out of its README"
                )
            found.append(file)
    return found


def _state(files: Sequence[str]) -> str:
    """Digest of the names, sizes and times of some files."""
    return bytes_digest(b"\0".join(os.fsencode(file) + b" " + file_stamp(file) for file in files))


def _tables() -> Path:
    """Folder of the tables into which the library copies the files of data set folders."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "tomebench"


def _cache_of(folder: str, state: str) -> str:
    """Folder of the table for one state of a data set folder's files; deletes unused ones of earlier states.

    The library's own cache goes by the paths and times of files: if a file is replaced by another of the same time, it
    would return the old rows.
    """
    states = _tables() / bytes_digest(os.fsencode(os.path.realpath(folder)))[:16]
    cache = states / state
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    with suppress(OSError):  # another process may be deleting them, too
        for other in states.iterdir():
            if time.time() - other.stat().st_mtime > _KEPT:  # until then a process may still read it
                shutil.rmtree(other)
    return str(cache)


def roots(name: str) -> tuple[str, ...]:
    """Folders in which the files of a data set may lie: its own folder, and the caches of the libraries."""
    import datasets
    from huggingface_hub import constants

    folder = str(user_path(name))
    own = [folder, os.path.realpath(folder)] if user_path(name).exists() else []  # the library follows links
    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return tuple(os.path.abspath(each) for each in (*own, *map(str, caches)))  # noqa: PTH100 (links are the user's)


def inside(file: str, roots: Sequence[str]) -> bool:
    """Whether a file, or the archive that it is in, lies in one of the folders ``roots``; True for files on the hub."""
    if file.startswith(("hf://", "https://huggingface.co/")):
        return True
    path = os.path.abspath(file.rpartition("::")[2])  # noqa: PTH100
    return any(path == root or path.startswith(f"{root}{os.sep}") for root in roots)


@contextmanager
def _quiet(offline: bool) -> Iterator[None]:
    """Context in which the libraries print no progress bars and log lines, and with ``offline`` use no network."""
    import datasets
    from datasets.utils import logging
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_logging

    bars = datasets.are_progress_bars_disabled()
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    modes: list[tuple[Any, bool]] = [(module, module.HF_HUB_OFFLINE) for module in (datasets.config, constants)]
    datasets.disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    hub_logging.set_verbosity_error()
    for module, mode in modes:
        module.HF_HUB_OFFLINE = mode or offline
    try:
        yield
    finally:
        for module, mode in modes:
            module.HF_HUB_OFFLINE = mode
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Context that turns the libraries' exceptions for a data set that cannot be opened into a one-line DataError."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (DatasetsError, HfHubHTTPError, OSError, ValueError, KeyError, RuntimeError) as error:
        cause = error.__cause__ or error
        reason = textwrap.shorten(
            printable(" ".join(str(cause).split())) or type(cause).__name__, 160, placeholder=" ..."
        )
        raise DataError(
            f"--data hfds/{printable(name)} cannot be opened ({reason}); give a data set with columns {IMAGE} and "
            f"{LABEL} that is on the hub, in the local cache or in a folder"
        ) from error
