"""Labels of the original tar come from a file that states them; an order of classes is never guessed."""

import importlib.util

import numpy as np
import pytest
import scipy.io
from image_trees import GOLDFISH, class_folders, file_name, flat_tar, members, true_wnids, write_tar

from tomebench.datasets.imagenet import wnids
from tomebench.datasets.images import open_dataset
from tomebench.datasets.truth import DEVKIT, META, SOLUTION, SYNSETS, file_number
from tomebench.errors import DataError

EXPECTED = [0, 1, 1, 999, 999, 999]


@pytest.fixture
def tar(tmp_path):
    return flat_tar(tmp_path / "ILSVRC2012_img_val.tar")


def labels(tar):
    return open_dataset(str(tar)).info.labels.tolist()


def refusal(tar):
    """The one line with which labels are refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(tar))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusal_can_fail(tar):
    (tar.parent / SYNSETS).write_text("\n".join(true_wnids()))
    with pytest.raises(pytest.fail.Exception):
        refusal(tar)


def devkit(folder, order):
    """The devkit's two files: ground truth in its own numbers, and which class id has which number."""
    folder.mkdir(parents=True, exist_ok=True)
    number = {wnid: n for n, wnid in enumerate(order, start=1)}
    (folder / DEVKIT).write_text("".join(f"{number[wnid]}\n" for wnid in true_wnids()))
    rows = [(n, wnid, 0) for wnid, n in number.items()] + [(1001, "n00001740", 3)]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    scipy.io.savemat(folder / META, {"synsets": np.array(rows, dtype=kinds)[:, None]})


def test_nothing_beside_it(tar):
    assert refusal(tar) == (
        f"{tar}: file numbers alone do not say the classes; put imagenet_2012_validation_synset_labels.txt or "
        "LOC_val_solution.csv beside it, or ILSVRC2012_validation_ground_truth.txt with meta.mat (both are in "
        "ILSVRC2012_devkit_t12/data)"
    )


def test_class_ids_line_by_line(tar):
    (tar.parent / SYNSETS).write_text("\n".join(true_wnids()))
    assert labels(tar) == EXPECTED


def test_kaggle_solution(tar):
    lines = [f"ILSVRC2012_val_{n:08d},{wnid} 85 1 499 272 {wnid} 1 2 3 4" for n, wnid in enumerate(true_wnids(), 1)]
    (tar.parent / SOLUTION).write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]))
    assert labels(tar) == EXPECTED
    (tar.parent / SOLUTION).write_text("\n".join(["ImageId,PredictionString", *lines[:100]]))
    assert "the file of labels beside it has none for 2 images, ILSVRC2012_val_00030001.JPEG" in refusal(tar)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ILSVRC2012_val_00000001,n01440764 1 2 3 4", "line 3 names image 1 again (n01440764)"),
        (
            "ILSVRC2012_val_00000002,n01440764 1 2 3 4 n01443537 1 2 3 4",
            "line 3 gives image 2 several classes (n01440764",
        ),
    ],
)
def test_a_solution_that_contradicts_itself(tar, line, says):
    first = "ILSVRC2012_val_00000001,n01443537 1 2 3 4"
    (tar.parent / SOLUTION).write_text("\n".join(["ImageId,PredictionString", first, line]))
    assert f"{tar.parent / SOLUTION}: {says}" in refusal(tar)


@pytest.mark.parametrize("place", [".", "ILSVRC2012_devkit_t12/data"])
def test_devkit_numbers_need_its_own_table(tar, place):
    devkit(tar.parent / place, order=list(reversed(wnids())))
    assert labels(tar) == EXPECTED
    (tar.parent / place / META).unlink()
    truth = tar.parent / place / DEVKIT
    assert refusal(tar) == (
        f"{truth} numbers the classes in the devkit's own order; put meta.mat of the same devkit beside it, or "
        "imagenet_2012_validation_synset_labels.txt"
    )
    truth.write_text("\n".join(true_wnids()))  # class ids under that name need no table
    assert labels(tar) == EXPECTED


def test_without_scipy(tar, monkeypatch):
    devkit(tar.parent, order=wnids())
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else found(name))
    assert "meta.mat: scipy is needed to read it; pip install scipy, or put imagenet_2012" in refusal(tar)


def test_tables_that_are_none(tar):
    devkit(tar.parent, order=wnids())
    (tar.parent / META).write_bytes(b"no table")
    assert "meta.mat is no meta.mat of the devkit; fetch it again" in refusal(tar)
    devkit(tar.parent, order=[*wnids()[:-1], "n99999999", wnids()[-1]])
    assert "meta.mat does not name each class of ImageNet-1k once" in refusal(tar)


def test_files_that_shift_every_label(tar):
    lines = true_wnids()
    (tar.parent / SYNSETS).write_text("\n".join(lines[:8] + lines[9:]))  # image 9 is lost
    assert "has 49999 lines, not 50000; fetch it again" in refusal(tar)
    (tar.parent / SYNSETS).write_text("\n".join([*lines[:8], "n99999999", *lines[9:]]))
    assert "image 9 has no class of ImageNet-1k there" in refusal(tar)
    (tar.parent / SYNSETS).write_bytes(b"\xff\xfe")
    assert "cannot be read (UnicodeDecodeError); fetch it again" in refusal(tar)
    (tar.parent / SYNSETS).write_text("\n".join(str(n % 1000) for n in range(50_000)))  # 0 to 999 is another order
    assert "numbers the classes in the devkit's own order" in refusal(tar)


def test_a_number_must_be_the_whole_name():
    assert file_number("val/n01440764/ILSVRC2012_val_00000293.JPEG") == 293
    assert file_number("ILSVRC2012_val_00000293_n01440764.JPEG") == 293
    assert file_number("n01440764_293.JPEG") is None
    assert file_number("ILSVRC2012_val_00000001/a.JPEG") is None
    assert file_number("ILSVRC2012_val_000000011.JPEG") is None


def test_one_image_of_another_kind_is_no_numbered_set(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"ILSVRC2012_val_00000001.JPEG": b"", "b.JPEG": b""})
    assert "2 images in one flat folder have no labels" in refusal(tar)


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_that_the_file_of_labels_contradicts(tmp_path, packed):
    root = class_folders(tmp_path / "set")
    data = write_tar(root / "val.tar", members()) if packed else root
    lines = true_wnids()
    (root / SYNSETS).write_text("\n".join(lines))
    assert labels(data) == EXPECTED
    lines[7 - 1] = wnids()[5]
    (root / SYNSETS).write_text("\n".join(lines))
    assert refusal(data) == (
        f"{GOLDFISH}/{file_name(7)}: its folder says class 1, the file of labels in {root} says 5; move it where it "
        "belongs, or take the wrong file of labels away"
    )
    (root / SYNSETS).unlink()
    (root / DEVKIT).write_text("1\n" * 50_000)  # in an order that nothing explains: it says nothing
    assert labels(data) == EXPECTED
