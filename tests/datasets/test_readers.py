"""Every reader gives the same list and the same pixels for the same images; what a layout leaves open is refused."""

import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from image_trees import (
    GOLDFISH,
    LAST,
    SETS,
    TENCH,
    class_folders,
    file_name,
    flat_tar,
    jpeg,
    members,
    pixels,
    true_wnids,
    write_tar,
)

from tomebench.datasets.checks import check_images
from tomebench.datasets.classes import ClassHead
from tomebench.datasets.images import open_dataset
from tomebench.datasets.truth import SYNSETS
from tomebench.errors import DataError

NAMES = (
    f"{TENCH}/{file_name(1)}",
    f"{GOLDFISH}/{file_name(7)}",
    f"{GOLDFISH}/{file_name(30_001)}",
    *(f"{LAST}/{file_name(n)}" for n in (2, 9, 50_000)),
)


def refusal(spec):
    """The one line with which a data set is refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(spec))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def assert_same(image_set, other):
    """The same list, digest and pixels, also in another process."""
    assert image_set.names == other.names
    assert image_set.info.digest == other.info.digest
    assert image_set.info.labels.tolist() == other.info.labels.tolist()
    twin = pickle.loads(pickle.dumps(image_set))
    for mine, its in zip(pixels(twin), pixels(other), strict=True):
        assert np.array_equal(mine, its)
    assert [image_set.problem(i) for i in range(len(image_set))] == [None] * len(other)
    assert [image_set.read(i) for i in range(len(image_set))] == [other.read(i) for i in range(len(other))]


@pytest.fixture
def folders(tmp_path):
    return open_dataset(str(class_folders(tmp_path / "folders")))


def test_helpers_can_fail(tmp_path, folders):
    with pytest.raises(pytest.fail.Exception):
        refusal(tmp_path / "folders")
    changed = class_folders(tmp_path / "changed")
    (changed / NAMES[3]).write_bytes(jpeg(3))
    with pytest.raises(AssertionError):
        assert_same(open_dataset(str(changed)), folders)
    (changed / NAMES[3]).unlink()
    with pytest.raises(AssertionError):
        assert_same(open_dataset(str(changed)), folders)


def test_class_folders(folders):
    assert folders.names == folders.paths == NAMES
    assert folders.info.labels.tolist() == [0, 1, 1, 999, 999, 999]
    assert folders.info.digest == "102eabdafe0860e4a249438f4072b2ec96b04e9eb945922bc4e29e0c529d2dd5"


@pytest.mark.parametrize("prefix", ["", "./", "val/", "./imagenet/val/", "ILSVRC2012_img_val/"])
def test_a_tar_of_class_folders(tmp_path, folders, prefix):
    tar = write_tar(tmp_path / "val.tar", members(prefix))
    assert_same(open_dataset(str(tar)), folders)
    assert open_dataset(str(tar)).info.name == "val.tar"


@pytest.mark.parametrize("directory", [False, True])
def test_the_original_tar(tmp_path, folders, directory):
    tar = flat_tar(tmp_path / "ILSVRC2012_img_val.tar")
    (tmp_path / SYNSETS).write_text("\n".join(true_wnids()) + "\n")
    class_folders(tmp_path / "elsewhere")
    assert_same(open_dataset(str(tmp_path if directory else tar)), folders)


def test_class_folders_go_before_a_tar_beside_them(tmp_path):
    flat_tar(tmp_path / "ILSVRC2012_img_val.tar")
    (tmp_path / TENCH).mkdir()
    (tmp_path / TENCH / "a.JPEG").write_bytes(jpeg(1))
    assert open_dataset(str(tmp_path)).names == (f"{TENCH}/a.JPEG",)


def test_imagenetv2_on_request_only(tmp_path, folders):
    number = {TENCH: "0", GOLDFISH: "1", LAST: "999"}
    for name, data in members().items():
        wnid, _, file = name.partition("/")
        (tmp_path / "v2" / number[wnid]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v2" / number[wnid] / file).write_bytes(data)
    found = open_dataset(f"imagenetv2/{tmp_path}/v2")
    assert_same(found, folders)
    assert found.paths[1] == f"1/{file_name(7)}"
    assert found.info.note == "ImageNetV2: 6 images; partial: 3 of 1000 classes, 6 images"
    assert "numbered class folders (0, 1, 999) are ambiguous" in refusal(tmp_path / "v2")
    assert refusal(tmp_path / "v2").endswith(
        "if this is ImageNetV2, whose folders are class numbers: --data imagenetv2/PATH"
    )
    (tmp_path / "v2" / "1000").mkdir()
    assert "folders named 0 to 999, not (1000); give the folder" in refusal(f"imagenetv2/{tmp_path}/v2")
    assert "not (n01440764, n01443537, n15075141)" in refusal(f"imagenetv2/{tmp_path}/folders")


def test_imagenetv2_is_sorted_by_number_not_as_text(tmp_path):
    for number in (10, 9, 100, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.jpeg").write_bytes(jpeg(number))
    assert open_dataset(f"imagenetv2/{tmp_path}").info.labels.tolist() == [2, 9, 10, 100]


def test_hidden_and_other_files_in_a_tar_are_left_alone(tmp_path, folders):
    tar = tmp_path / "val.tar"
    with tarfile.open(
        write_tar(tar, {**members(), f"{TENCH}/._a.JPEG": b"x", f"{TENCH}/notes.txt": b"x"}), "a"
    ) as file:
        for name, kind in ((f"{TENCH}/._b.JPEG", tarfile.SYMTYPE), (TENCH, tarfile.DIRTYPE), ("name of it", b"V")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    found = open_dataset(str(tar))
    assert_same(found, folders)
    assert found.extra == (f"{TENCH}/notes.txt",)
    assert found.info.note == "partial: 3 of 1000 classes, 6 images; 1 other file ignored"


def test_the_later_of_two_members_counts_as_it_would_extracted(tmp_path, folders):
    tar = write_tar(tmp_path / "val.tar", {NAMES[0]: b"old"})
    with tarfile.open(tar, "a") as file:
        file.add(tmp_path / "folders", arcname=".")
    assert_same(open_dataset(str(tar)), folders)


def test_layouts_in_a_tar_are_refused_as_on_disk(tmp_path):
    tar = tmp_path / "val.tar"
    write_tar(tar, {"a.JPEG": b"", "b.JPEG": b""})
    assert refusal(tar) == (
        f"{tar}: 2 images in one flat folder have no labels; sort them into class folders "
        "(n01440764/*.JPEG, n01443537/*.JPEG, ...), or pass --no-labels"
    )
    write_tar(tar, {f"val/{n}/a.JPEG": b"" for n in range(12)})
    assert f"{tar}/val: numbered class folders (0, 1, 10, ...) are ambiguous" in refusal(tar)
    write_tar(tar, {**members(), "n99999999/a.JPEG": b""})
    assert f"{tar}: 1 folder (n99999999) is not ImageNet-1k class ids; move them out" in refusal(tar)


def test_damaged_members_are_named_and_the_stamp_is_of_the_tar(tmp_path):
    files = members()
    files[NAMES[1]] = files[NAMES[1]][:100]
    image_set = open_dataset(str(write_tar(tmp_path / "val.tar", files)))
    assert image_set.problem(1).startswith(f"{NAMES[1]} (")
    with pytest.raises(DataError, match=rf"^cannot read image .*val\.tar: {NAMES[1]}: .*; replace it, or take it out"):
        image_set.open(1)
    with pytest.raises(DataError, match=r"^of 6 images in val\.tar, 1 cannot be read"):
        check_images(image_set)
    stamps = {image_set.stamp(index) for index in range(6)}
    assert len(stamps) == 6
    os.utime(tmp_path / "val.tar", ns=(1, 1))
    assert stamps.isdisjoint(image_set.stamp(index) for index in range(6))
    (tmp_path / "val.tar").unlink()
    assert image_set.stamp(0) == b""
    assert image_set.problem(0) == f"{NAMES[0]} (no such file)"


def test_files_of_the_same_size_and_time_have_stamps_of_their_own(tmp_path):
    """As in two states of one data set side by side, whose cache of pixels may be the same."""
    stamps = []
    for version in ("v1", "v2"):
        folder = class_folders(tmp_path / version / "set")
        for path in folder.rglob("*.JPEG"):
            path.write_bytes(bytes(1000))
            os.utime(path, ns=(1, 1))
        image_set = open_dataset(str(folder))
        stamps += [image_set.stamp(index) for index in range(6)]
    assert len({*stamps}) == 12


def test_every_set_has_other_images():
    assert len({jpeg(n) for numbers in SETS.values() for n in numbers}) == 6


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("how", ["folder", "link", "hard link", "capitals"])
def test_an_image_that_is_there_twice_is_refused_with_both_names(tmp_path, how, labels):
    root = class_folders(tmp_path / "data")
    image = root / TENCH / file_name(1)
    match how:
        case "folder":
            if not labels:
                pytest.skip("a folder that is entered twice is entered once there")
            shutil.rmtree(root / GOLDFISH)
            (root / GOLDFISH).symlink_to(root / TENCH)
        case "link":
            (root / GOLDFISH / file_name(3)).symlink_to(image)
        case "hard link":
            (root / GOLDFISH / file_name(3)).hardlink_to(image)
        case "capitals":
            image.with_suffix(".jpeg").write_bytes(image.read_bytes())
    with pytest.raises(DataError) as error:
        open_dataset(str(root), labels=labels)
    assert f"{TENCH}/{file_name(1)}" in str(error.value)
    assert "which would count twice; take one of them out" in str(error.value)


def test_links_to_images_elsewhere_are_images(tmp_path):
    there = class_folders(tmp_path / "there")
    for image in there.rglob("*.JPEG"):
        link = tmp_path / "links" / image.relative_to(there)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image)
    assert open_dataset(str(tmp_path / "links")).info.digest == open_dataset(str(there)).info.digest


def test_letters_are_classes_of_their_own_in_both_cases(tmp_path):
    for name in ("A", "B", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000.JPEG").write_bytes(jpeg(ord(name)))
    assert len(open_dataset(str(tmp_path), head=ClassHead(4, order="sorted"))) == 4
    assert len(open_dataset(str(tmp_path), labels=False)) == 4
