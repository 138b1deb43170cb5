"""Predictions and counts against a sort in numpy, with ties, padding, odd dtypes and non-finite logits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tomebench.datasets.checks import check_images
from tomebench.datasets.images import open_dataset
from tomebench.datasets.loader import Batch, batches
from tomebench.errors import DataError
from tomebench.measure.predict import predict, require_matching_head
from tomebench.models.preprocess import Preprocessing
from tomebench.runs.top1 import NO_PREDICTION, agreeing, at_chance_level, counts, discordant, is_right
from tomebench.schema import CellPredictions, ImageList

REALDATA = Path(__file__).parents[2].parent / "shared" / "realdata"


def batch_of(labels, n_valid=None, index=0):
    """Images that are all zero: the tests' models ignore them."""
    labels = torch.tensor(np.asarray(labels))
    return Batch(index, torch.zeros(len(labels), 3, 2, 2), len(labels) if n_valid is None else n_valid, labels)


def judge(logits, labels, n_valid=None):
    """What one cell with these logits is recorded as."""
    logits = torch.as_tensor(logits)
    return predict({"cell": lambda _: logits}, batch_of(labels, n_valid)).predictions["cell"]


def predictions(top1, in_top5=None):
    return CellPredictions(
        np.array(top1, dtype=np.uint16), np.array(in_top5 or [False] * len(top1), dtype=np.bool_), 0, 0
    )


@given(st.data())
def test_against_a_stable_sort(data):
    n, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    few_values = st.sampled_from([-1.0, 0.0, 0.5, 2.0])  # so that most images have ties
    logits = data.draw(hnp.arrays(np.float32, (n, classes), elements=few_values))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    order = np.argsort(-logits, axis=1, kind="stable")
    found = judge(logits, labels)
    assert found.top1.dtype == np.uint16
    assert found.top1.tolist() == order[:, 0].tolist()
    assert found.in_top5.tolist() == [label in row[:5] for label, row in zip(labels, order, strict=True)]
    assert found.ties == sum(int((row == row.max()).sum() > 1) for row in logits)
    assert found.nonfinite == 0
    assert counts(found, np.array(labels)) == (
        sum(int(label == row[0]) for label, row in zip(labels, order, strict=True)),
        int(found.in_top5.sum()),
    )


@given(st.data())
def test_any_of_several_labels_is_right(data):
    n, classes = data.draw(st.integers(1, 5)), data.draw(st.integers(7, 12))
    logits = data.draw(hnp.arrays(np.float32, (n, classes), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])))
    sets = data.draw(st.lists(st.sets(st.integers(0, classes - 1), min_size=1, max_size=3), min_size=n, max_size=n))
    labels = np.array([[*each, *[-1] * (3 - len(each))] for each in sets], dtype=np.int64)
    found = judge(logits, labels)
    each_alone = [judge(logits, [sorted(each)[k % len(each)] for each in sets]) for k in range(6)]
    assert found.top1.tolist() == each_alone[0].top1.tolist()
    assert found.in_top5.tolist() == np.any([one.in_top5 for one in each_alone], axis=0).tolist()
    assert is_right(found, labels).tolist() == [int(top) in each for top, each in zip(found.top1, sets, strict=True)]
    assert counts(found, labels) == (int(is_right(found, labels).sum()), int(found.in_top5.sum()))


def test_one_label_in_a_column_is_that_label():
    logits = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    labels = np.arange(50) % 9
    one, column = judge(logits, labels), judge(logits, labels[:, None])
    assert one.in_top5.tolist() == column.in_top5.tolist()
    assert discordant(one, column, labels[:, None]) == (0, 0)
    assert counts(one, labels) == counts(column, labels[:, None])


def test_padding_is_no_class():
    found = judge([[float("nan"), 0.0], [1.0, 0.0]], [[1, -1], [0, -1]])
    assert is_right(found, np.array([[1, -1], [0, -1]])).tolist() == [False, True]
    assert judge(np.arange(9, dtype=np.float32)[None], [[0, -1]]).in_top5.tolist() == [False]


def test_padding_does_not_count():
    logits = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [float("nan"), 0.0]]
    found = judge(logits, [1, 1, 1, 1], n_valid=2)
    assert found.top1.tolist() == [1, 0]
    assert found.in_top5.tolist() == [True, True]
    assert (found.ties, found.nonfinite) == (0, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_logits_are_counted_and_never_right(bad):
    found = judge([[bad, 1.0, 0.0], [0.0, 1.0, 0.0], [bad, bad, bad]], [0, 1, 2])
    assert found.nonfinite == 2
    assert found.top1.tolist() == [NO_PREDICTION, 1, NO_PREDICTION]
    assert found.in_top5.tolist() == [False, True, False]
    assert found.ties == 0
    assert counts(found, np.array([0, 1, 2])) == (1, 1)


def test_constant_logits_are_all_ties():
    found = judge(torch.zeros(4, 10), [0, 4, 5, 9])
    assert found.ties == 4
    assert found.top1.tolist() == [0, 0, 0, 0]
    assert found.in_top5.tolist() == [True, True, False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_judged_in_fp32(dtype):
    found = judge(torch.tensor([[1.0, 3.0, 2.0]], dtype=dtype), [1])
    assert found.top1.tolist() == [1]
    seen = []

    def model(images):
        seen.append((images.dtype, torch.is_grad_enabled()))
        return images.flatten(1)

    predict({"a": model}, batch_of([0]), lambda images: images.to(dtype))
    predict({"a": model}, batch_of([0]))
    assert seen == [(dtype, False), (torch.float32, False)]


def test_every_cell_sees_the_same_images():
    batch = Batch(7, torch.randn(4, 3, 2, 2), 3, torch.tensor([0, 1, 2, 2]))
    seen = {}

    def model(key):
        def run(images):
            seen[key] = images.clone()
            return torch.nn.functional.one_hot(torch.full((len(images),), key), 3).float()

        return run

    chunk = predict({str(key): model(key) for key in range(3)}, batch)
    assert chunk.index == 7
    assert list(chunk.predictions) == ["0", "1", "2"]
    assert all(torch.equal(images, batch.images) for images in seen.values())
    assert [counts(cell, np.array([0, 1, 2]))[0] for cell in chunk.predictions.values()] == [1, 1, 1]


def test_classes_above_the_signed_range_survive():
    logits = torch.zeros(1, 40_000)
    logits[0, 39_999] = 1
    assert judge(logits, [39_999]).top1.tolist() == [39_999]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
def test_discordant(rows):
    base, other, labels = (np.array(column) for column in zip(*rows, strict=True))
    b, c = discordant(predictions(base), predictions(other), labels)
    assert b == sum(x == y != z for x, z, y in rows)
    assert c == sum(z == y != x for x, z, y in rows)
    assert c - b == counts(predictions(other), labels)[0] - counts(predictions(base), labels)[0]
    assert discordant(predictions(other), predictions(base), labels) == (c, b)


def test_labels_of_other_images_are_refused():
    with pytest.raises(ValueError, match="2 predictions for 1 labels"):
        counts(predictions([0, 1]), np.array([0]))


@pytest.mark.parametrize(
    ("model_classes", "data_classes", "message"),
    [
        (21843, 1000, "the model has 21 843 classes and made 1 000: use a tag ending in _ft_in1k"),
        (
            10,
            1000,
            "the model has 10 classes and made 1 000: use weights trained for 1 000 classes, or leave out --data",
        ),
        (1000, 10, "the model has 1 000 classes and made 10: use weights trained for 10 classes, or leave out --data"),
        (0, 1000, "the model has no classifier: use weights trained for 1 000 classes, or leave out --data"),
    ],
)
def test_heads_that_do_not_match(model_classes, data_classes, message):
    images = ImageList("made", "0", np.zeros(1, dtype=np.int64), data_classes)
    with pytest.raises(DataError) as caught:
        require_matching_head(model_classes, images)
    assert str(caught.value) == message
    require_matching_head(data_classes, images)


def test_counting_needs_no_torch():
    code = "import sys, tomebench.measure.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.realdata
@pytest.mark.parametrize(("folder", "expected"), [("imagenet-val-300", 250), ("imagenet-sample-100", 74)])
def test_unmerged_deit_tiny_on_real_images(folder, expected):
    if not REALDATA.is_dir():
        pytest.skip("../shared/realdata is not here")
    import timm
    from safetensors.torch import load_file

    model = timm.create_model("deit_tiny_patch16_224").eval()
    model.load_state_dict(load_file(REALDATA / "deit_tiny_patch16_224.safetensors"))
    images = open_dataset(str(REALDATA / folder))
    check_images(images)
    require_matching_head(model.num_classes, images.info)
    right = seen = 0
    preprocessing = Preprocessing.from_model(model, 224)
    for batch in batches(images, preprocessing.transform(), 32, workers=0):
        found = predict({"r=0": model}, batch, preprocessing.normalise).predictions["r=0"]
        right += counts(found, batch.labels[: batch.n_valid].numpy())[0]
        seen += batch.n_valid
    print(f"{folder}: {right} of {seen} right")
    assert seen == len(images)
    assert abs(right - expected) <= 1


def named(answers: list[int]) -> CellPredictions:
    top1 = np.array(answers, dtype=np.uint16)
    return CellPredictions(top1, np.zeros(len(top1), dtype=np.bool_))


def test_chance_level_is_guessing_or_another_order_of_the_classes():
    labels = np.repeat(np.arange(37), 2)
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(37)
    shuffled[[0, 1, 2]] = [0, 1, 2]  # a few classes are where they were
    guesses = np.random.Generator(np.random.PCG64(1)).integers(0, 37, 74)
    assert at_chance_level(named(guesses.tolist()), labels, 37)
    assert at_chance_level(named(shuffled[labels].tolist()), labels, 37)
    assert at_chance_level(named([5] * 74), labels, 37)
    assert not at_chance_level(named(labels.tolist()), labels, 37)
    half = [int(label) if number % 3 else 36 for number, label in enumerate(labels)]
    assert not at_chance_level(named(half), labels, 37)  # a poor model of the right classes


def test_few_images_are_no_chance_level():
    assert not at_chance_level(named([0, 1, 0, 1]), np.array([0, 1, 0, 0]), 2)
    assert not at_chance_level(named([3]), np.array([3]), 1000)
    assert not at_chance_level(named([0]), np.array([3]), 1000)
    assert not at_chance_level(named([0] * 14 + [1] * 6), np.zeros(20, dtype=np.int64), 2)
    assert at_chance_level(named([0] * 6), np.array([[3, -1], [4, 5], [6, -1]] * 2), 1000)


def test_classes_in_another_order_are_told_from_a_poor_model():
    once = np.arange(37)  # an image of each class cannot show that a class is called by another's name
    assert not at_chance_level(named([*once[:15], *np.roll(once[15:], 1)]), once, 37)
    twice = np.repeat(once, 2)  # 22 of 37 classes where they belong, the others exchanged
    assert not at_chance_level(named([*twice[:44], *np.roll(twice[44:], 2)]), twice, 37)
    assert at_chance_level(named([*twice[:34], *np.roll(twice[34:], 2)]), twice, 37)
    labels = np.repeat(np.arange(100), 4)  # 20 classes exchanged, 30 images right, the rest called anything
    found = (labels + 50 + 13 * (np.arange(400) % 4)) % 100
    found[:80] = np.roll(labels[:80], 4)
    found[80:200:4] = labels[80:200:4]
    assert not at_chance_level(named(found.tolist()), labels, 100)


def test_agreement_counts_the_same_answers_of_finite_logits():
    base, other = named([1, 2, 3, NO_PREDICTION]), named([1, 2, 4, NO_PREDICTION])
    assert agreeing(base, other) == 2
