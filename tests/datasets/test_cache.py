"""The cache of preprocessed images: what comes out is what was put in, or nothing, whatever happened to the file."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painter import to_tensor
from PIL import Image

from tomebench.datasets import cache as cache_module
from tomebench.datasets.cache import PixelCache
from tomebench.datasets.images import open_dataset
from tomebench.datasets.loader import batches
from tomebench.errors import DataError, StorageError
from tomebench.schema import ImageState

KEY = {"images": "d" * 64, "crop_pct": 0.9}
SHAPE = (3, 4, 5)
COUNT = 6
RECORD = 3 * 4 * 5 + 16 + 4
"""Bytes of pixels, digest and checksum."""
STATE = "10 77"


def picture(seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8))


def digest(seed):
    return f"{seed:032x}"


def opened(folder, key=KEY, count=COUNT):
    cache_module._descriptor.cache_clear()  # as a new process would
    return PixelCache.open(folder, "imagenet/val", key, count, SHAPE)


@pytest.fixture
def full(tmp_path):
    cache = opened(tmp_path)
    for index in range(COUNT):
        cache.put(index, STATE, digest(index), picture(index))
    return cache


def found(cache, state=STATE):
    """Which images are there; each must be what was put in."""
    there = {index: kept for index in range(COUNT) if (kept := cache.get(index, state)) is not None}
    for index, (image, of) in there.items():
        assert torch.equal(image, picture(index)), index
        assert of == digest(index)
    return set(there)


def test_found_can_fail(tmp_path):
    cache = opened(tmp_path)
    cache.put(2, "", digest(2), picture(3))
    with pytest.raises(AssertionError):
        found(cache, "")
    cache.put(2, "", digest(3), picture(2))
    with pytest.raises(AssertionError):
        found(cache, "")


@given(st.dictionaries(st.integers(0, 5), st.text(max_size=9)))
def test_what_was_put_in_comes_out_and_nothing_else(tmp_path_factory, states):
    folder = tmp_path_factory.mktemp("cache")
    cache = opened(folder)
    assert found(cache) == set()
    for index, state in states.items():
        cache.put(index, state, digest(index), picture(index))
    for again in (cache, pickle.loads(pickle.dumps(cache)), opened(folder)):
        assert {i for i in range(COUNT) if again.get(i, states.get(i, "")) is not None} == set(states)
        assert all(torch.equal(again.get(i, state)[0], picture(i)) for i, state in states.items())


def test_an_image_file_that_changed_is_not_there(full):
    assert found(full) == set(range(COUNT))
    for state in ("", "10 78", "1 077", "10 77 "):
        assert found(full, state) == set()


def test_damage_of_any_byte_is_noticed(full):
    whole = Path(full.path).read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(0, len(whole), 200):
        with Path(full.path).open("r+b") as file:
            os.pwrite(file.fileno(), bytes([whole[position] ^ int(random.integers(1, 256))]), position)
            assert found(full) == set(range(COUNT)) - {position // RECORD}
            os.pwrite(file.fileno(), whole[position : position + 1], position)
    assert found(full) == set(range(COUNT))


@pytest.mark.parametrize("size", [0, 1, 200, COUNT * RECORD + 1])
def test_a_file_of_another_size_is_begun_anew(full, tmp_path, size):
    os.truncate(full.path, size)
    again = opened(tmp_path)
    assert found(again) == set()
    again.put(0, STATE, digest(0), picture(0))
    assert found(again) == {0}


def test_a_write_that_was_cut_off_is_not_there(full):
    with Path(full.path).open("r+b") as file:
        os.pwrite(file.fileno(), picture(3).numpy().tobytes()[:30], 2 * RECORD)
    assert found(full) == {0, 1, 3, 4, 5}


def test_another_key_is_another_file_and_says_what_it_is_of(full, tmp_path):
    other = opened(tmp_path, {**KEY, "crop_pct": 1.0})
    assert found(other) == set()
    assert found(opened(tmp_path)) == set(range(COUNT))
    texts = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(text["crop_pct"] for text in texts) == [0.9, 1.0]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".json", ".pixels", ".pixels"]
    assert "imagenet-val-" in full.path


def test_no_room_and_no_folder_are_said_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(StorageError, match=r"needs 0.0 GiB more for 6 images and the disk has 0.0 GiB; free some"):
            opened(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="give a folder that can be written"):
        opened(tmp_path / "file")


def test_a_disk_that_fills_up_is_one_line(full, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: len(data) - 1)
    with pytest.raises(StorageError, match="No space left on device; free some space, or leave --cache out"):
        full.put(0, "", digest(0), picture(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_pass_decodes_nothing_and_gives_the_same_pixels(tmp_path, workers, monkeypatch):
    folder = tmp_path / "data" / "n01440764"
    folder.mkdir(parents=True)
    for index in range(5):
        Image.fromarray(picture(index).permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    images = open_dataset(str(tmp_path / "data"))
    cache = PixelCache.open(tmp_path / "cache", "x", KEY, 5, SHAPE)
    plain = list(batches(images, to_tensor, 2, workers=0))
    first = list(batches(images, to_tensor, 2, workers=workers, cache=cache))
    Image.fromarray(picture(9).permute(1, 2, 0).numpy()).save(folder / "3.png")  # another image in the same place
    decoded.clear()
    second = list(batches(images, as_it_is, 2, workers=0, cache=cache))
    assert len(decoded) == 1
    assert torch.equal(second[1].images[1], picture(9))
    for a, b, c in zip(plain, first, second, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.images, c.images) or c.index == 1


decoded = []


def as_it_is(image):
    decoded.append(image)
    return to_tensor(image)


def test_a_cached_image_is_compared_with_what_its_file_holds(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "n01440764"
    folder.mkdir(parents=True)
    Image.fromarray(picture(0).permute(1, 2, 0).numpy()).save(folder / "0.png")
    images = open_dataset(str(tmp_path / "data"))
    monkeypatch.setattr(type(images), "state", lambda self, index: "always the same")
    monkeypatch.setattr("secrets.randbelow", lambda below: 0)  # of fifty images the first is looked at
    cache = PixelCache.open(tmp_path / "cache", "x", KEY, 1, SHAPE)
    for seed in (0, 9):
        Image.fromarray(picture(seed).permute(1, 2, 0).numpy()).save(folder / "0.png")
        (batch,) = batches(images, as_it_is, 1, workers=0, cache=cache)
        assert torch.equal(batch.images[0], picture(seed))
        assert batch.read == (ImageState("always the same", images.digest(0)),)


def test_what_somebody_else_laid_there_is_not_written_to(full, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(COUNT * RECORD))
    Path(full.path).unlink()
    Path(full.path).symlink_to(victim)
    with pytest.raises(DataError, match="give a folder that can be written"):
        opened(tmp_path)
    Path(full.path).unlink()
    opened(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(DataError, match="is not a file of this user"):
        opened(tmp_path)
    assert victim.read_bytes() == bytes(COUNT * RECORD)


def test_two_that_begin_a_cache_at_once_fill_the_same_file(tmp_path, monkeypatch):
    first = opened(tmp_path)
    first.put(0, STATE, digest(0), picture(0))
    exists = Path.exists
    with monkeypatch.context() as patch:  # the other looked before the first had begun
        patch.setattr(Path, "exists", lambda path: exists(path) and path.suffix != ".pixels")
        second = opened(tmp_path)
    second.put(1, STATE, digest(1), picture(1))
    assert found(first) == found(second) == {0, 1}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".pixels"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    cache = opened(tmp_path)
    cache.put(0, "", digest(0), picture(0))
    assert torch.equal(opened(tmp_path).get(0, "")[0], picture(0))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".pixels"]


def test_a_cache_that_is_cut_off_while_it_is_open_is_empty_there(full):
    record = Path(full.path).stat().st_size // COUNT
    os.truncate(full.path, 2 * record + 10)
    assert found(full) == {0, 1}
