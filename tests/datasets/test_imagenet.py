"""Class folders get their true labels, whatever is missing; every other layout is refused with the way out."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from tomebench.datasets.imagenet import read_class_folders, wnids
from tomebench.errors import DataError

TENCH, GOLDFISH, LAST = "n01440764", "n01443537", "n15075141"


def touch(root, *names):
    """Files whose content does not matter."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def refusal(root):
    """The one line with which a folder is refused."""
    with pytest.raises(DataError) as caught:
        read_class_folders(root)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_refusal_can_fail(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(touch(tmp_path, f"{TENCH}/a.JPEG"))


def test_class_ids_are_those_of_timm():
    assert list(wnids()) == ImageNetInfo().label_names()
    assert list(wnids()) == sorted(set(wnids()))
    assert len(wnids()) == 1000


def test_labels_are_positions_in_the_full_list(tmp_path):
    touch(tmp_path, f"{LAST}/z.JPEG", f"{GOLDFISH}/b.jpg", f"{GOLDFISH}/a.PNG")
    info, files = read_class_folders(tmp_path)
    assert files.names == (f"{GOLDFISH}/a.PNG", f"{GOLDFISH}/b.jpg", f"{LAST}/z.JPEG")
    assert info.labels.tolist() == [1, 1, 999]
    assert info.labels.dtype == np.int64
    assert info.num_classes == 1000
    assert info.note == "partial: 2 of 1000 classes, 3 images"
    assert info.name == tmp_path.name


def test_files_are_sorted_as_bytes(tmp_path):
    names = ["B.JPEG", "a.JPEG", "é.JPEG", "a1.JPEG", "a10.JPEG", "a2.JPEG", "\U0001f41f.JPEG", "\uffee.JPEG"]
    touch(tmp_path, *(f"{TENCH}/{name}" for name in names))
    _, files = read_class_folders(tmp_path)
    found = [os.fsencode(name) for name in files.names]
    assert found == sorted(found)
    assert len(found) == len(names)


def test_digest_is_over_names_and_labels_in_order(tmp_path):
    touch(tmp_path, f"{GOLDFISH}/a.JPEG", f"{TENCH}/x y.JPEG")
    info, _ = read_class_folders(tmp_path)
    expected = hashlib.sha256(f"{TENCH}/x y.JPEG\0000\0{GOLDFISH}/a.JPEG\0001\0".encode()).hexdigest()
    assert info.digest == expected
    touch(tmp_path, f"{GOLDFISH}/b.JPEG")
    assert read_class_folders(tmp_path)[0].digest != expected


@pytest.mark.parametrize("part", ["val", "validation"])
def test_validation_part_is_found(tmp_path, part):
    direct, _ = read_class_folders(touch(tmp_path / "plain", f"{TENCH}/a.JPEG"))
    root = touch(tmp_path / "imagenet", f"{part}/{TENCH}/a.JPEG", f"train/{TENCH}/b.JPEG", "readme.txt")
    info, files = read_class_folders(root)
    assert files.folder == str(root / part)
    assert info.digest == direct.digest  # the same images, wherever they lie
    assert info.name == f"imagenet/{part}"
    assert read_class_folders(root / part)[0].name == f"imagenet/{part}"


def test_two_validation_parts_are_not_chosen_between(tmp_path):
    root = touch(tmp_path / "imagenet", f"val/{TENCH}/a.JPEG", f"validation/{TENCH}/b.JPEG")
    with pytest.raises(DataError) as caught:
        read_class_folders(root)
    assert (
        str(caught.value) == f"{root} holds val and validation, each with class folders; say which: --data {root}/val"
    )


def test_a_full_set_needs_no_note(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{wnid}/a.JPEG" for wnid in wnids()))
    assert read_class_folders(tmp_path)[0].note == "1000 classes, 1000 images"
    monkeypatch.setattr("tomebench.datasets.imagenet.VALIDATION_IMAGES", 1000)
    assert read_class_folders(tmp_path)[0].note is None


def test_what_is_left_out_is_said(tmp_path):
    touch(tmp_path, f"{TENCH}/a.JPEG", f"{TENCH}/.hidden.JPEG", f"{TENCH}/notes.txt", "loose.JPEG", ".DS_Store")
    (tmp_path / GOLDFISH).mkdir()
    info, files = read_class_folders(tmp_path)
    assert files.names == (f"{TENCH}/a.JPEG",)
    assert info.note == "partial: 1 of 1000 classes, 1 image; 1 empty class folder; 2 other files ignored"


def test_strange_names_are_opened(tmp_path):
    folder = tmp_path / TENCH
    folder.mkdir()
    names = [b"new\nline.JPEG", b"caf\xe9.JPEG", b"[red]x[bold].JPEG", b"x" * 240 + b".JPEG"]
    for name in names:
        Image.new("RGB", (2, 3)).save(os.fsdecode(os.fsencode(folder) + b"/" + name), "JPEG")
    info, files = read_class_folders(tmp_path)
    assert len(info.labels) == 4
    for index in range(4):
        assert files.load(index)[0].size == (2, 3)
        assert files.problem(index) is None
    (folder / "new\nline.JPEG").write_bytes(b"")
    found = [text for index in range(4) if (text := files.problem(index))]
    assert found == [rf"{TENCH}/new\nline.JPEG (empty file)"]


def test_missing(tmp_path):
    assert "no such folder; give a folder with n01440764" in refusal(tmp_path / "gone")


def test_a_file(tmp_path):
    assert "is a file; give the folder" in refusal(touch(tmp_path, "val.tar") / "val.tar")


@pytest.mark.parametrize("part", [".", "val"])
def test_flat(tmp_path, part):
    message = refusal(touch(tmp_path, f"{part}/ILSVRC2012_val_1.JPEG", f"{part}/ILSVRC2012_val_2.JPEG"))
    assert "2 images in one flat folder have no labels; sort them into class folders (n01440764/*.JPEG" in message
    assert str(tmp_path / part) in message


def test_numbered_folders(tmp_path):
    message = refusal(touch(tmp_path, *(f"{n}/a.JPEG" for n in range(12))))
    assert "numbered class folders (0, 1, 10, ...)" in message
    assert "rename each to its class id (0 is n01440764" in message


def test_folders_of_another_data_set(tmp_path):
    message = refusal(touch(tmp_path, "cat/a.JPEG", "dog/a.JPEG"))
    assert "2 folders (cat, dog) are not ImageNet-1k class ids; expected n01440764/*.JPEG" in message
    assert "1 folder (train) is not" in refusal(touch(tmp_path / "b", f"train/{TENCH}/a.JPEG"))


def test_unknown_beside_known(tmp_path):
    message = refusal(touch(tmp_path, f"{TENCH}/a.JPEG", "n99999999/a.JPEG", "5/a.JPEG", "a\nb/a.JPEG", "x/a.JPEG"))
    assert r"4 folders (5, a\nb, n99999999, ...) are not ImageNet-1k class ids; move them out" in message


def test_nothing_inside(tmp_path):
    assert "no images and no class folders" in refusal(tmp_path)
    (tmp_path / TENCH).mkdir()
    assert "the class folders hold no images" in refusal(tmp_path)
    touch(tmp_path, f"{TENCH}/images/a.JPEG")  # as in Tiny ImageNet
    assert read_class_folders(tmp_path)[1].names == (f"{TENCH}/images/a.JPEG",)


def test_unreadable_folder(tmp_path, monkeypatch):
    def scandir(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    assert "Permission denied; make the folder readable" in refusal(Path(tmp_path))
