"""No file, whatever it holds, is a bug: thousands that were changed at random, through the door of their kind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mutations
import pytest
from mutations import Door, attack, doors, mutate

from tomebench.errors import TomebenchError

SLOW = ("safetensors", "pickle", "real labels", "solution", "synsets", "index of shards")
"""Doors that take tens of milliseconds: a model is built, or 50 000 lines are read."""
NAMES = list(doors())


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    door = doors_once()[name]
    seeds = range(15 if name in SLOW else 300)
    found = [failure for seed in seeds if (failure := attack(name, door, seed, tmp_path)) is not None]
    assert found == []


@pytest.mark.parametrize(("name", "seed"), [("baseline", 360), ("index of shards", 186)])
def test_what_once_failed(name: str, seed: int, tmp_path: Path) -> None:
    assert attack(name, doors_once()[name], seed, tmp_path) is None


def doors_once() -> dict[str, Door]:
    if not _KEPT:
        _KEPT.update(doors())
    return _KEPT


_KEPT: dict[str, Door] = {}


def test_whole_files_are_read(tmp_path: Path) -> None:
    for name, door in doors_once().items():
        if name == "index of shards":  # which are not there
            continue
        for sample in door.samples[:1] if name == "safetensors" else door.samples:  # the second has some tensors only
            (tmp_path / door.name).write_bytes(sample)
            door.read(tmp_path)
            for left in tmp_path.iterdir():
                left.unlink()


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda folder: [][0], "IndexError"),
        (lambda folder: os.write(2, b"libtiff: bad"), "on stderr: 'libtiff: bad"),
        (lambda folder: None, None),
    ],
)
def test_an_attack_tells_what_is_no_refusal(tmp_path: Path, read: object, says: str | None) -> None:
    failure = attack("x", Door((b"abc",), read, "x"), 0, tmp_path)  # type: ignore[arg-type]
    assert (failure is None) == (says is None)
    assert failure is None or failure.what.startswith(str(says))


def test_what_takes_too_long_or_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit, says in (("SECONDS", -1.0, "took 0 s"), ("BYTES", -1, "GiB")):
        with monkeypatch.context() as patch:
            patch.setattr(mutations, name, limit)
            failure = attack("x", Door((b"abc",), lambda folder: None, "x"), 0, tmp_path)
        assert failure is not None
        assert says in failure.what


def test_mutations_differ_and_are_those_of_their_seed() -> None:
    import random

    found = {mutate(b"0123456789" * 20, random.Random(seed)) for seed in range(300)}
    assert len(found) > 250
    assert mutate(b"abc", random.Random(5)) == mutate(b"abc", random.Random(5))


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere", "link to itself", "no end"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_refused_at_once(name: str, kind: str, tmp_path: Path) -> None:
    door, path = doors_once()[name], tmp_path / doors_once()[name].name
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link to nowhere":
            path.symlink_to(tmp_path / "none")
        case "link to itself":
            path.symlink_to(path)
        case "no end":
            path.symlink_to("/dev/zero")
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(20)
    try:
        found = door.read(tmp_path)
    except TomebenchError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found is None, "something was read"
    finally:
        signal.alarm(0)
