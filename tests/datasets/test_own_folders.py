"""Folders that are not quite class folders: nested ones, parts of a data set, a few ImageNet ids among own names."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_trees import jpeg, write_tar
from own_trees import ANIMALS, listed, parquet, pictures, refusal
from torchvision.datasets import ImageFolder

from tomebench.datasets.classes import ANY_HEAD, SORTED, ClassHead, wnids
from tomebench.datasets.images import open_dataset

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(
    ("parts", "best"), [(["train", "test"], "test"), (["train", "test", "valid"], "valid"), (["train"], "train")]
)
def test_the_part_to_evaluate_is_not_the_one_that_was_trained_on(tmp_path, parts, best):
    root = tmp_path / "p"
    for part in parts:
        pictures(root / part)
    assert refusal(root, ClassHead(len(parts))) == (
        f"{root} holds {', '.join(sorted(parts))}; give the part to evaluate: --data {root}/{best}"
    )


def test_parts_beside_other_folders_are_no_classes_either(tmp_path):
    root = tmp_path / "p"
    for part in ("train", "val"):
        pictures(root / part)
    pictures(root, ["logs"])
    for head in (ClassHead(3), ANY_HEAD, ClassHead(3, order=SORTED)):
        assert refusal(root, head) == f"{root} holds logs, train, val; give the part to evaluate: --data {root}/val"
    # A list says that these are the classes, or the pictures are in them.
    assert len(open_dataset(str(root), head=ClassHead(3, (listed("logs", "train", "val"),)))) == 14
    assert len(open_dataset(str(pictures(tmp_path / "q", ["logs", "train", "val"])), head=ClassHead(3))) == 6


def test_class_folders_one_level_down_are_named(tmp_path):
    pictures(tmp_path / "p" / "images")
    for part in ("p", "p/images/.."):
        assert refusal(tmp_path / part, ClassHead(3)).endswith(
            " holds one folder, with 3 folders in it (cat, dog, newt); if those are the classes, give --data "
            f"{tmp_path / part}/images"
        )
    assert len(open_dataset(str(pictures(tmp_path / "q", ["only"])), head=ClassHead(1))) > 0


def test_folders_without_pictures_are_named(tmp_path):
    for name in ANIMALS:
        (tmp_path / "p" / name).mkdir(parents=True)
    assert refusal(tmp_path / "p", ClassHead(3)) == (
        f"{tmp_path}/p: the class folders hold no images (cat, dog, newt); expected cat/*.jpg, ..."
    )


@pytest.mark.parametrize("in_tar", [False, True])
def test_pictures_in_folders_of_a_class_folder_are_its_own_as_imagefolder_has_it(tmp_path, in_tar):
    root = pictures(tmp_path / "p", ["a", "b"], each=1)
    (root / "a" / "0" / "deep").mkdir(parents=True)
    for number in range(6):
        (root / "a" / "0" / ("deep" * (number % 2)) / f"{number}.jpg").write_bytes(jpeg(100 + number))
    theirs = ImageFolder(root)
    (root / "a" / "0" / "notes.txt").write_text("x")
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    spec = write_tar(tmp_path / "p.tar", files) if in_tar else root
    found = open_dataset(str(spec), head=ClassHead(2))
    assert list(zip(found.names, found.info.labels.tolist(), strict=True)) == sorted(
        (str(Path(path).relative_to(root)), label) for path, label in theirs.samples
    )
    assert found.names[:3] == ("a/0.jpg", "a/0/0.jpg", "a/0/2.jpg")
    assert [found.read(index) for index in range(8)] == [files[name] for name in found.names]
    assert found.info.note.endswith("2 classes, 8 images; 1 other file ignored")


def test_imagenetv2_reads_folders_in_its_folders_too(tmp_path):
    (tmp_path / "7" / "deep").mkdir(parents=True)
    (tmp_path / "7" / "deep" / "a.jpg").write_bytes(jpeg(1))
    found = open_dataset(f"imagenetv2/{tmp_path}")
    assert (found.names, found.paths) == ((f"{wnids()[7]}/deep/a.jpg",), ("7/deep/a.jpg",))
    assert (found.info.labels.tolist(), found.read(0)) == ([7], jpeg(1))


def test_a_link_back_is_not_followed_and_one_elsewhere_is(tmp_path):
    root = pictures(tmp_path / "p", ["a", "b"], each=1)
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "a" / "more").symlink_to(pictures(tmp_path / "q", ["x"]) / "x", target_is_directory=True)
    assert open_dataset(str(root), head=ClassHead(2)).names == ("a/0.jpg", "a/more/0.jpg", "a/more/1.jpg", "b/0.jpg")


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path):
    root = pictures(tmp_path / "p", ["a", "b"], each=1)
    (root / "c").symlink_to("c")
    (root / "a" / "x.jpg").symlink_to("x.jpg")
    found = open_dataset(str(root), head=ClassHead(2))
    assert found.names == ("a/0.jpg", "a/x.jpg", "b/0.jpg")
    assert found.problem is not None
    assert found.problem(1) == "a/x.jpg (Too many levels of symbolic links)"
    assert found.extra == ("c",)
    assert open_dataset(str(root), labels=False).names == ("a/0.jpg", "a/x.jpg", "b/0.jpg")


def test_a_few_imagenet_ids_among_own_classes_make_no_imagenet(tmp_path):
    names = sorted([*(f"thing{number:04d}" for number in range(1197)), *wnids()[:3]])
    for name in names:
        (tmp_path / "p" / name).mkdir(parents=True)
        (tmp_path / "p" / name / "0.jpg").touch()
    found = open_dataset(str(tmp_path / "p"), head=ClassHead(1200))
    assert found.info.class_names == tuple(names)
    assert found.info.labels.tolist() == list(range(1200))
    rows = parquet(tmp_path / "rows", names, [("x", jpeg(1), 1199), ("y", jpeg(2), 0)])
    assert open_dataset(f"hfds/{rows}", head=ClassHead(1200)).info.labels.tolist() == [0, 1199]


def test_with_as_many_outputs_as_imagenet_the_list_has_to_say_it(tmp_path):
    names = [*wnids()[:1], "cat", "dog"]
    root = pictures(tmp_path / "p", names, each=1)
    assert refusal(root, ClassHead(1000)) == (
        f"{root}: 2 folders (cat, dog) are not ImageNet-1k class ids; move them out, or pass the model's list of names "
        "with --class-names"
    )
    rows = parquet(tmp_path / "rows", names, [("x", jpeg(1), 2)])
    assert refusal(f"hfds/{rows}", ClassHead(1000)).endswith(
        "labels cat, dog are no class ids; take them out, or pass the model's list of names with --class-names"
    )
    own = ClassHead(1000, chosen=listed(*(f"thing{number}" for number in range(997)), *names))
    assert open_dataset(str(root), head=own).info.labels.tolist() == [997, 998, 999]
    assert open_dataset(f"hfds/{rows}", head=own).info.labels.tolist() == [999]
    one = pictures(tmp_path / "q", [*wnids()[:2], "logs"], each=1)  # rather a folder that got in
    assert refusal(one, ClassHead(1000)).endswith("1 folder (logs) is not ImageNet-1k class ids; move them out")


def test_large_heads_of_their_own_count_in_shards_as_they_are(tmp_path):
    tar = write_tar(tmp_path / "v.tar", {"x.jpg": jpeg(1), "x.cls": b"3", "y.jpg": jpeg(2), "y.cls": b"7"})
    own = open_dataset(f"wds/{tar}", head=ClassHead(1500))
    assert (own.info.num_classes, own.names) == (1500, ("3/x.jpg", "7/y.jpg"))
    # ImageNet-21k orders these classes otherwise, which is refused where the model is looked at.
    for size in (11221, 11821, 21841, 21842, 21843):
        assert open_dataset(f"wds/{tar}", head=ClassHead(size)).info.num_classes == 1000
    labels = {"x.jpg": jpeg(1), "x.cls": b"1000"}
    assert open_dataset(f"wds/{write_tar(tmp_path / 'w.tar', labels)}", head=ClassHead(21843)).info.num_classes == 21843


def test_numbered_folders_are_ambiguous_for_imagenet_only(tmp_path):
    root = pictures(tmp_path / "p", [str(number) for number in range(8)], each=1)
    for head in (ClassHead(1000), ANY_HEAD):
        assert "numbered class folders (0, 1, 2, ...) are ambiguous" in refusal(root, head)
    assert open_dataset(str(root), head=ClassHead(8)).info.labels.tolist() == list(range(8))
