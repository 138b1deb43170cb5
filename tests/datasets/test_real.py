"""ReaL labels go by the number in the file name: several are right, none leaves the image out."""

import json

import pytest
from image_trees import GOLDFISH, LAST, TENCH, class_folders, file_name, flat_tar, true_wnids

from tomebench.datasets.images import open_dataset
from tomebench.datasets.truth import SYNSETS
from tomebench.errors import DataError


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "set")


def write_real(path, entries):
    """A file of 50 000 entries, of which these are given by file number."""
    path.write_text(json.dumps([entries.get(number, [500]) for number in range(1, 50_001)]))
    return path


REAL = {1: [0, 391], 7: [], 30_001: [1], 2: [3, 5, 999], 9: [999], 50_000: []}


def refusal(root, real):
    """The one line with which labels are refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(root), real=real)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusal_can_fail(root, tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(root, write_real(tmp_path / "real.json", REAL))


def test_labels_are_those_of_the_file(root, tmp_path):
    found = open_dataset(str(root), real=write_real(tmp_path / "real.json", REAL))
    assert found.names == tuple(
        f"{w}/{file_name(n)}" for w, n in ((TENCH, 1), (GOLDFISH, 30_001), (LAST, 2), (LAST, 9))
    )
    assert found.info.labels.tolist() == [[0, 391, -1], [1, -1, -1], [3, 5, 999], [999, -1, -1]]
    assert found.info.note == ("partial: 3 of 1000 classes, 6 images; ReaL labels, 2 images without one left out")
    assert found.open(3).size == (24, 16)
    assert found.read(1) == (root / GOLDFISH / file_name(30_001)).read_bytes()


def test_the_digest_covers_the_labels(root, tmp_path):
    digests = {open_dataset(str(root)).info.digest}
    for entries in (REAL, {**REAL, 1: [391, 0]}, {**REAL, 1: [0]}, {**REAL, 7: [1]}):
        digests.add(open_dataset(str(root), real=write_real(tmp_path / "real.json", entries)).info.digest)
    assert len(digests) == 5


def test_a_limit_chooses_among_images_with_labels(root, tmp_path):
    found = open_dataset(str(root), limit=3, real=write_real(tmp_path / "real.json", REAL))
    assert found.info.labels.shape == (3, 3)
    assert found.info.note.endswith("2 images without one left out; subset: 3 of 4 images, seed 0")


def test_numbered_images_in_a_tar(tmp_path, root):
    tar = flat_tar(tmp_path / "val.tar")
    (tmp_path / SYNSETS).write_text("\n".join(true_wnids()))
    real = write_real(tmp_path / "real.json", REAL)
    assert open_dataset(str(tar), real=real).info.digest == open_dataset(str(root), real=real).info.digest


def test_names_without_a_number(root, tmp_path):
    real = write_real(tmp_path / "real.json", REAL)
    (root / TENCH / "photo.JPEG").touch()
    assert refusal(root, real) == (
        "--real is for images named ILSVRC2012_val_00000001 to 00050000; n01440764/photo.JPEG is not; leave it out"
    )
    assert "those of digits are not" in refusal("digits", real)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "{}", "[[1], [2]]", json.dumps([["1"]] * 50_000), json.dumps([[1000]] * 50_000)]
)
def test_files_of_another_shape(root, tmp_path, text):
    (tmp_path / "real.json").write_text(text)
    message = refusal(root, tmp_path / "real.json")
    assert "is not JSON" in message or "is not a list of 50000 lists of class numbers 0 to 999" in message
    assert message.endswith("; give the file real.json of ReaL")


def test_no_file_and_no_label(root, tmp_path):
    assert "No such file or directory; give the file real.json" in refusal(root, tmp_path / "gone")
    nothing = write_real(tmp_path / "real.json", {number: [] for number in REAL})
    assert "has no label for any of the 6 images; leave --real out" in refusal(root, nothing)
