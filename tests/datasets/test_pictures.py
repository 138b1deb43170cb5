"""Pictures without labels: every one of a tree, a tar, shards or rows, once."""

from __future__ import annotations

import pytest
from image_trees import jpeg, write_tar
from own_trees import parquet

from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError

datasets = pytest.importorskip("datasets")
FILES = {"b.jpg": jpeg(1), "a/x.png": jpeg(2), "a/deep/y.JPEG": jpeg(3), "a/notes.txt": b"x", ".hidden/z.jpg": jpeg(4)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def tree(root):
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_tree_is_read_at_any_depth_and_a_link_back_is_not_followed(tmp_path):
    root = tree(tmp_path / "p")
    (root / "a" / "again").symlink_to(root, target_is_directory=True)
    found = open_dataset(str(root), labels=False)
    assert found.names == ("a/deep/y.JPEG", "a/x.png", "b.jpg")
    assert found.info.labels.tolist() == [-1, -1, -1]
    assert not found.info.labelled
    assert found.info.note == "3 images without labels; 1 other file ignored"
    assert found.open(2).size == (24, 16)


def test_tars_shards_and_rows_too(tmp_path):
    tar = write_tar(tmp_path / "p.tar", FILES)
    assert open_dataset(str(tar), labels=False).names == ("a/deep/y.JPEG", "a/x.png", "b.jpg")
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        write_tar(shards / f"{number}.tar", {"x.jpg": jpeg(number), "x.cls": b"0"})
    found = open_dataset(f"wds/{shards}", labels=False)
    assert (found.names, found.info.note) == (("0/x.jpg", "1/x.jpg"), "2 images without labels")
    rows = parquet(tmp_path / "rows", ["a"], [("x", jpeg(1), 0), ("y", jpeg(2), 0)])
    found = open_dataset(f"hfds/{rows}", labels=False)
    assert (len(found), found.info.note) == (2, "split validation; 2 images without labels")
    assert found.read(1) == jpeg(2)
    assert not open_dataset("digits", labels=False).info.labelled


@pytest.mark.parametrize("below", ["", "cat"])
def test_a_tar_hides_no_pictures_beside_or_below_it(tmp_path, below):
    root = tmp_path / "p"
    (root / below).mkdir(parents=True)
    for number in range(5):
        (root / below / f"{number}.png").write_bytes(jpeg(number))
    write_tar(root / "old.tar", {"x.png": jpeg(9), "x.cls": b"0"})
    found = open_dataset(str(root), labels=False)
    assert found.names == tuple(f"{below}/{number}.png".lstrip("/") for number in range(5))
    assert found.info.note == "5 images without labels; 1 other file ignored"
    assert open_dataset(f"wds/{root}", labels=False).names == ("x.png",)  # where shards are asked for


def test_nothing_to_look_at_is_one_line(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no pictures in it \(notes.txt\); give a folder of JPEG or PNG files"):
        open_dataset(str(tmp_path / "p"), labels=False)
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(str(tmp_path / "absent"), labels=False)
