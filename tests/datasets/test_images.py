"""One place opens every data set; subsets are seeded, balanced and marked; unreadable images are listed together."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tomebench.datasets.checks import check_images
from tomebench.datasets.images import ImageSet, open_dataset, stratified
from tomebench.errors import DataError
from tomebench.schema import ImageList

WNIDS = ("n01440764", "n01443537", "n01484850", "n15075141")


@pytest.fixture
def folder(tmp_path):
    """Four classes with 1, 2, 3 and 6 images; the gray level says which image it is."""
    level = 0
    for wnid, count in zip(WNIDS, (1, 2, 3, 6), strict=True):
        (tmp_path / wnid).mkdir()
        for n in range(count):
            Image.new("L", (4, 4), level).save(tmp_path / wnid / f"{n}.png")
            level += 10
    return tmp_path


def levels(image_set):
    return [image_set.open(i).getpixel((0, 0))[0] for i in range(len(image_set))]


def test_folder(folder):
    image_set = open_dataset(str(folder))
    assert levels(image_set) == list(range(0, 120, 10))
    assert image_set.info.labels.tolist() == [0, 1, 1, 2, 2, 2, *[999] * 6]
    assert levels(pickle.loads(pickle.dumps(image_set))) == levels(image_set)


def test_limit_keeps_order_labels_and_says_so(folder):
    whole, part = open_dataset(str(folder)), open_dataset(str(folder), limit=7, seed=3)
    assert len(part) == 7
    shown = levels(part)
    assert shown == sorted(shown)
    assert part.info.labels.tolist() == [whole.info.labels[level // 10] for level in shown]
    assert Counter(part.info.labels.tolist()) == {0: 1, 1: 2, 2: 2, 999: 2}
    assert part.info.note == "partial: 4 of 1000 classes, 12 images; subset: 7 of 12 images, seed 3"
    assert part.info.digest != whole.info.digest
    assert levels(pickle.loads(pickle.dumps(part))) == shown
    assert open_dataset(str(folder), limit=7, seed=3).info.digest == part.info.digest
    digests = {open_dataset(str(folder), limit=7, seed=seed).info.digest for seed in range(10)}
    assert len(digests) > 1


@pytest.mark.parametrize("limit", [12, 13, None])
def test_a_limit_that_keeps_everything_changes_nothing(folder, limit):
    assert open_dataset(str(folder), limit=limit).info.digest == open_dataset(str(folder)).info.digest
    assert "subset" not in open_dataset(str(folder), limit=limit).info.note


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(folder, limit):
    with pytest.raises(DataError, match="give 1 or more images"):
        open_dataset(str(folder), limit=limit)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_stratified(labels, data):
    limit = data.draw(st.integers(0, len(labels)))
    seed = data.draw(st.integers(0, 3))
    chosen = stratified(labels, limit, seed)
    assert len(chosen) == limit == len(set(chosen))
    assert list(chosen) == sorted(chosen)
    assert set(chosen) <= set(stratified(labels, min(limit + 1, len(labels)), seed))
    taken, there = Counter(labels[i] for i in chosen), Counter(labels)
    unfinished = [taken[c] for c in there if taken[c] < there[c]]
    assert max(taken.values(), default=0) <= min(unfinished, default=len(labels)) + 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gone/imagenet", "no such folder; give one with a folder of images for each class, or digits"),
        ("digit", "no such folder; did you mean digits"),
        ("tfds/imagenet", "no reader for this kind of data set; give a folder of class folders"),
        ("wds/gone", "'wds/gone': there is no gone; give wds/PATH"),
        ("imagenetv2/gone", "there is no gone; give imagenetv2/PATH"),
        ("wds:/data/x", "no reader for this kind"),
        ("s3://bucket/x", "no reader for this kind"),
        ("~nobody-of-that-name/x", "no such folder; give one with a folder"),
        ("wds/~nobody-of-that-name/x", "there is no ~nobody-of-that-name/x"),
        ("a\nb", r"'a\\nb': no such folder"),
    ],
)
def test_specs_that_lead_nowhere(spec, message):
    with pytest.raises(DataError) as caught:
        open_dataset(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_nearly_that_name_is_proposed(tmp_path, monkeypatch):
    (tmp_path / "in" / "my_pictures").mkdir(parents=True)
    (tmp_path / "in_pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    for spec, near in (("in/my_picture", "in/my_pictures"), ("im_pictures", "in_pictures")):
        with pytest.raises(DataError, match=f"no such folder; did you mean {near}\\?"):
            open_dataset(spec)


def test_all_unreadable_files_are_listed(folder):
    check_images(open_dataset(str(folder)))
    (folder / WNIDS[0] / "0.png").write_bytes(b"")
    (folder / WNIDS[3] / "5.png").write_bytes(b"<html>")
    with pytest.raises(DataError) as caught:
        check_images(open_dataset(str(folder)))
    assert str(caught.value) == (
        f"of 12 images in {folder.name}, 2 cannot be read: {WNIDS[0]}/0.png (empty file), {WNIDS[3]}/5.png "
        "(not an image); replace them, or leave them out with --allow-missing 2"
    )
    for name in "0123":
        (folder / WNIDS[3] / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^of 12 .*, 6 cannot .*1\.png \(empty file\), \.\.\.; replace"):
        check_images(open_dataset(str(folder)))


def test_only_the_images_of_a_subset_are_checked(folder):
    (folder / WNIDS[3] / "5.png").write_bytes(b"")  # image 11
    labels = open_dataset(str(folder)).info.labels.tolist()
    passed = {11 in stratified(labels, limit, 0) for limit in range(1, 12) if not refused(str(folder), limit)}
    stopped = {11 in stratified(labels, limit, 0) for limit in range(1, 12) if refused(str(folder), limit)}
    assert (passed, stopped) == ({False}, {True})


def refused(spec, limit):
    try:
        check_images(open_dataset(spec, limit=limit))
    except DataError:
        return True
    return False


def test_sets_without_files_have_nothing_to_check():
    info = ImageList("made", "0", np.zeros(3, dtype=np.int64), 10)
    check_images(ImageSet(info, lambda _: Image.new("RGB", (1, 1))))


def test_digits():
    image_set = open_dataset("digits")
    assert set(image_set.info.labels.tolist()) == set(range(10))
    assert image_set.info.num_classes == 10
    assert image_set.info.note is None
    assert image_set.open(0).mode == "RGB"
    twin = pickle.loads(pickle.dumps(image_set))
    assert np.array_equal(twin.open(5), image_set.open(5))
    assert open_dataset("digits", limit=20).info.note == f"subset: 20 of {len(image_set)} images, seed 0"
    assert Counter(open_dataset("digits", limit=20).info.labels.tolist()) == dict.fromkeys(range(10), 2)
