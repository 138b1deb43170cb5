"""The embedded digits: the data are whole, the split is fixed, and images are the same everywhere."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomebench.datasets import digits
from tomebench.datasets.digits.data import load_digits, split_indices
from tomebench.datasets.digits.render import IMAGE_SIZE, render, render_array
from tomebench.datasets.images import open_dataset


def digest(arrays):
    """One sha256 over arrays, in order: equal only if every byte is."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def test_digest_sees_one_changed_byte():
    image = np.zeros((4, 4), np.uint8)
    changed = image.copy()
    changed[3, 3] = 1
    assert digest([image]) == digest([image.copy()]) != digest([changed])


def test_the_data_are_the_published_ones():
    cells, labels = load_digits()
    assert cells.shape == (1797, 8, 8)
    assert cells.dtype == np.uint8
    assert (cells.min(), cells.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[:10].tolist() == list(range(10))
    assert cells[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert digest([cells]) == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"


def test_loaded_arrays_are_read_only():
    cells, labels = load_digits()
    for array in (cells, labels, split_indices("test"), split_indices("train")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_split_is_disjoint_complete_and_stratified():
    train, test = split_indices("train"), split_indices("test")
    assert (len(train), len(test)) == (1198, 599)
    assert sorted([*train, *test]) == list(range(1797))
    labels = load_digits()[1]
    assert np.abs(np.bincount(labels[test]) * 2 - np.bincount(labels[train])).max() <= 1
    cells = load_digits()[0]
    assert not {c.tobytes() for c in cells[train]} & {c.tobytes() for c in cells[test]}


def test_the_split_never_changes():
    assert digest([split_indices("test")]) == "57507dd02ebf85355fa3cf515ca1002316de50dc02b855d4651a2e23f5650333"


def test_images_never_change():
    assert (
        digest(render(i) for i in range(0, 599, 20))
        == "b00ec4fcf78dc17aaa5fbc5b8ba9d7d7f1480f891eda8efd7c6d5550bf39a7a6"
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 598), st.sampled_from(["train", "test"]), st.integers(0, 10**9), st.floats(0, 1))
def test_an_image_depends_on_its_arguments_only(index, split, seed, clutter):
    image, ink = render_array(index, split, seed, clutter)
    assert image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert image.dtype == np.uint8
    assert 0 <= ink.min() < ink.max() <= 1
    again, _ = render_array(index, split, seed, clutter)
    assert np.array_equal(image, again)
    assert not np.array_equal(image, render_array(index, split, seed + 1, clutter)[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 598), st.integers(0, 10**9))
def test_the_whole_digit_is_inside(index, seed):
    ink = render_array(index, "test", seed)[1]
    cells = load_digits()[0][split_indices("test")[index]] / 16
    scale = ink.sum() / cells.sum()  # pixels per cell
    assert (18 / 8) ** 2 * 0.9 < scale < (30 / 8) ** 2 * 1.1


def test_clutter_surrounds_the_digit():
    plain, ink = render_array(3, "test", 7, clutter=0.0)
    full = render_array(3, "test", 7)[0]
    away = ink == 0
    assert len(np.unique(plain[away].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(full[away].reshape(-1, 3), axis=0)) > 1000


def test_evaluation_set():
    info = digits.image_list()
    assert info.name == "digits"
    assert info.num_classes == 10
    assert len(info.labels) == 599
    assert info.note is None
    assert info.labels.tolist() == load_digits()[1][split_indices("test")].tolist()
    assert info.digest == "950e721941d6b9acb23419933267d05de3288806f73aa84c907aa027b59d741a"
    image = pickle.loads(pickle.dumps(digits.open_image))(598)
    assert (image.mode, image.size) == ("RGB", (56, 56))
    assert image.tobytes() == render(598, "test", 0).tobytes()


@pytest.mark.parametrize("index", [-1, 599])
def test_no_such_image(index):
    with pytest.raises(IndexError, match="of 599"):
        digits.open_image(index)


def test_another_process_draws_the_same_image():
    code = "from tomebench.datasets.digits import open_image as o; print(o(11).tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bytes.fromhex(other.stdout.strip()) == digits.open_image(11).tobytes()


def test_drawing_needs_no_torch():
    code = "import sys, tomebench.datasets.digits as d; d.open_image(0); print('torch' in sys.modules)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "False"


def test_the_digits_to_train_on_are_others():
    """Nothing that is counted is trained on; the pictures are drawn alike."""
    held_out, others = open_dataset("digits"), open_dataset("digits-train")
    assert (len(held_out), len(others)) == (599, 1198)
    assert others.info.name == "digits-train"
    assert others.info.digest != held_out.info.digest
    assert others.info.labels.tolist() == load_digits()[1][split_indices("train")].tolist()
    assert others.open(3).tobytes() == render(3, "train", 1).tobytes()
    assert pickle.loads(pickle.dumps(others)).open(3).tobytes() == others.open(3).tobytes()
