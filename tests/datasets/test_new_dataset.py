"""A kind of data set by one file and one entry: its images and labels are listed, checked, swept and evaluated."""

from __future__ import annotations

import json
import pickle
import re
import sys
import textwrap
from pathlib import Path

import pytest

import tomebench
from tomebench.cli import app
from tomebench.datasets import readers
from tomebench.datasets.classes import ClassHead, ClassNames
from tomebench.datasets.images import open_dataset
from tomebench.datasets.readers import READERS, Reader
from tomebench.errors import DataError

PAGE = (Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md").read_text()
RECIPE = re.search(r"^## A data set\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)[1]
TEN = ClassHead(10)


@pytest.fixture(autouse=True)
def added(monkeypatch, tmp_path_factory):
    """Follow the recipe: its file and its entry."""
    room = tmp_path_factory.mktemp("readers")
    monkeypatch.syspath_prepend(str(room))
    file = textwrap.dedent(re.search(r" *```python\n(.*?)```", RECIPE, flags=re.DOTALL)[1])
    (room / "flat.py").write_text(file)
    entry = eval(re.search(r"Add `(Reader\(.*?\))` to", RECIPE)[1].replace("{_ROOM}.", ""), {"Reader": Reader})
    monkeypatch.setattr(readers, "READERS", {**READERS, entry.kind: entry})
    yield
    sys.modules.pop("flat", None)


@pytest.fixture
def digits():
    """Twenty held-out digits, two of each."""
    return open_dataset("digits", limit=20)


@pytest.fixture
def flat(tmp_path, digits):
    """The same as pictures whose names begin with the digit, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, label in enumerate(digits.info.labels):
        digits.open(index).save(folder / f"{label}_{index:02}.png")
    (folder / "notes.txt").write_text("two of each")
    return folder


def test_images_and_labels_are_what_was_written(flat, digits):
    found = open_dataset(f"flat/{flat}", head=TEN)
    assert found.paths == tuple(sorted(path.name for path in flat.glob("*.png")))
    assert found.info.labels.tolist() == sorted(digits.info.labels.tolist())
    assert (found.info.name, found.info.num_classes, found.extra) == ("pictures", 10, ("notes.txt",))
    for index, path in enumerate(found.paths):
        label, number = path.removesuffix(".png").split("_")
        assert found.info.labels[index] == int(label)
        assert pickle.loads(pickle.dumps(found.open))(index).tobytes() == digits.open(int(number)).tobytes()


def test_the_list_is_that_of_class_folders(flat, tmp_path):
    found = open_dataset(f"flat/{flat}", head=TEN)
    for name, path in zip(found.names, found.paths, strict=True):
        (tmp_path / "folders" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / name).write_bytes((flat / path).read_bytes())
    folders = open_dataset(str(tmp_path / "folders"), head=TEN)
    assert (found.info.digest, found.names) == (folders.info.digest, folders.names)
    assert [found.digest(index) for index in range(20)] == [folders.digest(index) for index in range(20)]


def test_a_list_of_names_numbers_the_classes(flat):
    backwards = ClassNames(tuple(map(str, range(9, -1, -1))), "names.txt")
    found = open_dataset(f"flat/{flat}", head=ClassHead(10, chosen=backwards))
    assert found.info.labels.tolist() == [9 - int(path[0]) for path in found.paths]
    assert found.info.labels.tolist() == sorted(found.info.labels)


def test_a_sweep_sees_the_images_and_labels(flat, tmp_path):
    def counted(name, data, **more):
        how = {"device": "cpu", "batch_size": 10, "budget": "none", "workers": 0, "img_size": 28, **more}
        rows = tomebench.sweep("digits_vit", "0,8", out=tmp_path / name, data=data, **how)
        return [(row.r, row.n_seen, row.top1_correct, row.ties, row.status) for row in rows]

    with pytest.warns(UserWarning, match="would not show a loss to be within"):  # of so few images
        own, embedded = counted("own", f"flat/{flat}"), counted("embedded", "digits", limit=20)
    assert own == embedded
    assert own[0][1] == 20
    assert own[0][2] > 4


def test_without_labels_it_is_a_set_of_pictures(flat):
    found = open_dataset(f"flat/{flat}", labels=False)
    assert len(found) == 20
    assert found.info.note == "20 images without labels; 1 other file ignored"
    assert set(found.info.labels.tolist()) == {-1}


def test_it_is_listed_and_checked(flat, capsys):
    assert app.run(("list", "datasets", "--json")) == 0
    kinds = {line["--data"]: line["what it is"] for line in json.loads(capsys.readouterr().out)["datasets"]}
    assert kinds["flat/DIR"] == "a folder of pictures whose names begin with their class"
    assert {*READERS} < {name.partition("/")[0] for name in kinds}
    assert app.run(("doctor", "--data", f"flat/{flat}", "--model", "digits_vit", "--decode")) == 0
    assert "pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "no pictures in it; give a folder with CLASS_NAME.png in it"),
        (["cat_1.png"], "has 1 class (cat), the model has 10 classes"),
    ],
)
def test_what_is_no_such_set_is_refused(tmp_path, digits, files, says):
    for name in files:
        digits.open(0).save(tmp_path / name)
    with pytest.raises(DataError) as caught:
        open_dataset(f"flat/{tmp_path}", head=TEN)
    assert says in str(caught.value)
    with pytest.raises(DataError, match=r"there is no .*gone; give flat/PATH"):
        open_dataset(f"flat/{tmp_path}/gone", head=TEN)


def test_a_name_without_a_class_of_the_model_is_refused(flat):
    (flat / "0_00.png").rename(flat / "ten_00.png")
    names = ClassNames(tuple(map(str, range(10))), "names.txt")
    with pytest.raises(DataError, match="ten"):
        open_dataset(f"flat/{flat}", head=ClassHead(10, chosen=names))
    with pytest.raises(DataError, match="begin with no class"):
        open_dataset(f"flat/{flat}", head=None)  # of ImageNet-1k
