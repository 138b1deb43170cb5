"""Every kind of file that is read, changed at random, through the door that reads it.

    cd tests && python mutations.py [--count N] [--seed N] [--door NAME]

Whatever a file holds, a door gives what it reads or says in one line what is wrong: no other exception, nothing on
stderr, ten seconds and two gigabytes at most. Prints a table, and the seed of every input that did something else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from runs.store_samples import CONFIG, fill
from safetensors.torch import save

from tomebench.datasets.class_lists import read_class_names
from tomebench.datasets.classes import wnids
from tomebench.datasets.decode import decode_rgb, problem
from tomebench.datasets.images import open_dataset
from tomebench.datasets.manifest import read_manifest
from tomebench.datasets.real import real_labels
from tomebench.datasets.truth import SYNSETS, find_truth
from tomebench.errors import TomebenchError
from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.snapshot import run_snapshot
from tomebench.models.checkpoint import load_checkpoint
from tomebench.models.sources import source_of
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.schema import ImageList
from tomebench.sweeps.config_files import load_config

SECONDS, BYTES = 10.0, 2 * 2**30
"""What one input may take at most."""


@dataclass(frozen=True)
class Door:
    """A kind of file."""

    samples: tuple[bytes, ...]
    read: Callable[[Path], object]  # a folder in which the file lies as ``name``
    name: str


@dataclass(frozen=True)
class Failure:
    """An input that was neither read nor refused in one line."""

    door: str
    seed: int
    what: str


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A file changed in a few places: bits, numbers, lengths, copies of parts, an end that is not there."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not found:
            return bytes(found)
        at = chance.randrange(len(found))
        # Headers and lengths are at the ends of files; what is in their middle is often pixels.
        at = chance.choice((at, at, at % 64, len(found) - 1 - at % min(64, len(found)))) % len(found)
        size = chance.choice((1, 2, 4, 8, 100))
        match chance.randrange(9):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at] = chance.randrange(256)
            case 2:
                found[at : at + size] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            case 3:
                del found[at : at + size]
            case 4:
                found[at:at] = found[chance.randrange(len(found)) :][: chance.choice((1, 8, 200, 4000))]
            case 5:
                del found[at:]
            case 6:
                number = chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**9))
                found[at : at + 8] = number.to_bytes(8, chance.choice(("little", "big")))
            case 7:
                digits = [i for i, byte in enumerate(found) if chr(byte).isdigit()]
                if digits:
                    at = chance.choice(digits)
                    found[at : at + 1] = chance.choice(
                        (b"-1", b"0", b"99999999999999999999", b"1e999", b"null", b'"x"')
                    )
            case 8:
                found[at:at] = chance.choice(
                    (b"[" * 2000, b'{"a":' * 500, b"\r\n", b"\xff\xfe", b"../", b"\x1b[31m", b",")
                )
    return bytes(found)


def doors() -> dict[str, Door]:
    """All kinds, with whole files of each."""
    model = timm.create_model("test_vit", img_size=64)
    state = dict(model.state_dict())

    def weights(folder: Path) -> object:
        return load_checkpoint(timm.create_model("test_vit", img_size=64), next(folder.iterdir()))

    baseline, images = _baseline(), _images()
    found = {f"image {kind}": Door((data,), _decoded, f"x.{kind}") for kind, data in images.items()}
    jpeg = images["jpeg"]
    real = json.dumps([[i % 1000] for i in range(50_000)]).encode()
    solution = "ImageId,PredictionString\n" + "\n".join(
        f"ILSVRC2012_val_{i:08d},{wnids()[i]} 1 2 3 4" for i in range(1, 9)
    )
    truth = "\n".join(wnids()[i % 1000] for i in range(50_000)).encode()
    config = {"architecture": "test_vit", "num_classes": 1000, "label_names": list(wnids()), "pretrained_cfg": {}}
    some = {name: state[name] for name in ("cls_token", "head.bias")}
    return found | {
        "tar of folders": Door(
            (_tar({f"{wnids()[0]}/a.JPEG": jpeg, f"{wnids()[1]}/b.JPEG": jpeg + b"\0"}),), _opened, "x.tar"
        ),
        "wds": Door(
            (_tar({"a.jpg": jpeg, "a.cls": b"3", "b.jpg": jpeg, "b.json": b'{"label": 4}'}),), _shards, "x.tar"
        ),
        "safetensors": Door((save(state), save(some)), weights, "x.safetensors"),
        "pickle": Door((_pickled(state), _pickled({"model": state, "model_ema": state, "epoch": 3})), weights, "x.pth"),
        "index of shards": Door((b'{"weight_map": {"cls_token": "a.safetensors"}}',), weights, "x.index.json"),
        "class names": Door(
            (b"cat\ndog\n", b'{"cat": 0, "dog": 1}', b'{"id2label": {"0": "cat"}}'), _names, "classes.txt"
        ),
        "config of a model": Door((json.dumps(config).encode(),), _source, "config.json"),
        "yaml": Door(
            (b"model: vit_b_16\nr: 0..24:4\nbatch-size: 8\nbudget: quick\nmetric: k\nthreads: 2\n",),
            _settings,
            "x.yaml",
        ),
        "manifest": Door(
            ((b"0" * 64 + b"  a/b.JPEG\n") * 1,), lambda folder: read_manifest(folder / "x.sha256"), "x.sha256"
        ),
        "real labels": Door((real,), _real, "real.json"),
        "solution": Door((solution.encode(),), find_truth, "LOC_val_solution.csv"),
        "synsets": Door((truth,), find_truth, SYNSETS),
        "baseline": Door((baseline,), lambda folder: read_baseline(folder / "b.json"), "b.json"),
        "store": Door((_stored(),), _rows, "run.sqlite"),
    }


def attack(name: str, door: Door, seed: int, folder: Path) -> Failure | None:
    """One changed file through its door.

    Args:
        name: of the door.
        door: which is asked.
        seed: of the change.
        folder: empty; is left so.
    """
    chance = random.Random(f"{name} {seed}")
    (folder / door.name).write_bytes(mutate(chance.choice(door.samples), chance))
    before, start = _memory(), time.monotonic()
    what, written = None, [""]
    try:
        with _stderr() as written, warnings.catch_warnings():
            warnings.simplefilter("error")
            door.read(folder)
    except TomebenchError as error:
        if "\n" in str(error) or not str(error).isprintable() or len(str(error)) > 2000:
            what = f"not one readable line: {str(error)[:200]!r}"
        elif error.exit_code == 1:
            what = f"exit 1: {error}"
    except Exception as error:  # noqa: BLE001 (this is what is looked for)
        what = f"{type(error).__name__}: {str(error)[:200]}"
    took = time.monotonic() - start
    if what is None and any(written):
        what = f"on stderr: {written[0][:200]!r}"
    if what is None and took > SECONDS:
        what = f"took {took:.0f} s"
    if what is None and (grown := _memory() - before) > BYTES:
        what = f"took {grown / 2**30:.1f} GiB"
    for left in folder.iterdir():
        left.unlink()
    return None if what is None else Failure(name, seed, what)


def attacks(seeds: range, only: str | None = None) -> Iterator[tuple[str, int, list[Failure]]]:
    """Name of a door, number of inputs and what failed, of every door in turn."""
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)  # or Python writes to stderr what nobody listens to
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, door in doors().items():
                if only in (None, name):
                    found = (attack(name, door, seed, Path(folder)) for seed in seeds)
                    yield name, len(seeds), [failure for failure in found if failure is not None]
    finally:
        logging.getLogger().removeHandler(handler)


@contextlib.contextmanager
def _stderr() -> Iterator[list[str]]:
    """A list that holds, afterwards, what was written to the process's stderr, by libraries in C, too."""
    sys.stderr.flush()
    written: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _decoded(folder: Path) -> object:
    path = str(next(folder.iterdir()))
    return problem(path), decode_rgb(path)


def _opened(folder: Path) -> object:
    found = open_dataset(str(next(folder.iterdir())))
    return [found.decoded(index) for index in range(min(len(found), 4))]


def _shards(folder: Path) -> object:
    found = open_dataset(f"wds/{folder}")
    return [found.decoded(index) for index in range(min(len(found), 4))]


def _names(folder: Path) -> object:
    return read_class_names(folder / "classes.txt")


def _source(folder: Path) -> object:
    source = source_of(f"local-dir:{folder}")
    assert source is not None
    return source.names()


def _settings(folder: Path) -> object:
    return load_config([folder / "x.yaml"], {})


def _real(folder: Path) -> object:
    names = (f"{wnids()[0]}/ILSVRC2012_val_00000293.JPEG",)
    return real_labels(ImageList("x", "d", np.zeros(1, dtype=np.int64), 1000), names, folder / "real.json")


def _rows(folder: Path) -> object:
    with Store.read(folder) as store:
        return build_rows(store), run_snapshot(store)


def _images() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    found = {}
    for kind, image, options in (
        ("jpeg", noise, {}),
        ("jpg", noise.convert("CMYK"), {"format": "JPEG", "progressive": True}),
        ("png", noise, {}),
        ("pal.png", noise.convert("P"), {"format": "PNG"}),
        ("gray.png", Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)), {"format": "PNG"}),
        ("webp", noise, {}),
        ("bmp", noise, {}),
        ("gif", noise.convert("P"), {}),
        ("tif", noise, {"compression": "tiff_lzw"}),
        ("ppm", noise, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, **{"format": {"jpeg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper()), **options})
        found[kind] = buffer.getvalue()
    return found


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _stored() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with Store.open(Path(folder) / "run", CONFIG) as store:
            fill(store)
        return (Path(folder) / "run" / "run.sqlite").read_bytes()


def _baseline() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with Store.open(Path(folder) / "run", CONFIG) as store:
            fill(store)
            snapshot = run_snapshot(store)
        write_baseline(Path(folder) / "b.json", snapshot)
        return (Path(folder) / "b.json").read_bytes()


def main() -> int:
    """Attack every door and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="inputs, over all doors")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--door", help="only this one")
    given: Any = parser.parse_args()
    each = -(-given.count // (1 if given.door else len(doors())))
    failed = 0
    for name, count, failures in attacks(range(given.seed, given.seed + each), given.door):
        print(f"{name:18} {count:6} inputs, {len(failures)} failed", flush=True)
        for failure in failures:
            print(f"    seed {failure.seed}: {failure.what}")
        failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
