"""Classes of any names get the numbers that the model has for them, or one line says what is not known."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_trees import class_folders, jpeg, write_tar
from own_trees import ANIMALS, listed, parquet, pictures, refusal

from tomebench.datasets.class_lists import as_names, lists_in_config, names_beside, read_class_names
from tomebench.datasets.classes import ANY_HEAD, NATURAL, SORTED, ClassHead, ClassNames, map_classes, wnids
from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError

datasets = pytest.importorskip("datasets")

SHUFFLED = ("newt", "cat", "dog")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_refusal_can_fail(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(pictures(tmp_path / "p"), ClassHead(3))


def test_as_many_folders_as_classes_are_in_the_order_of_their_names(tmp_path):
    found = open_dataset(str(pictures(tmp_path / "p")), head=ClassHead(3))
    assert found.info.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.info.num_classes, found.names[0], found.info.class_names) == (3, "cat/0.jpg", ANIMALS)
    assert found.info.note == "classes in the order of sorted folder names; 3 classes, 6 images"


@pytest.mark.parametrize("head", [ClassHead(3, chosen=listed(*SHUFFLED)), ClassHead(3, (listed(*SHUFFLED),) * 2)])
def test_a_list_decides_the_numbers_and_a_subset_keeps_them(tmp_path, head):
    root = pictures(tmp_path / "p")
    found = open_dataset(str(root), head=head)
    assert [(name[:3], label) for name, label in zip(found.names, found.info.labels.tolist(), strict=True)][::2] == [
        ("new", 0),
        ("cat", 1),
        ("dog", 2),
    ]
    for picture in (root / "cat").iterdir():
        picture.unlink()
    assert open_dataset(str(root), head=head).info.labels.tolist() == [0, 0, 2, 2]
    (root / "cat").rmdir()
    found = open_dataset(str(root), head=head)
    assert found.info.labels.tolist() == [0, 0, 2, 2]
    assert found.info.note == "classes by classes.txt; partial: 2 of 3 classes, 4 images"


def test_the_same_pictures_are_the_same_list_in_folders_tar_shards_and_rows(tmp_path):
    head = ClassHead(3, (listed(*SHUFFLED),))
    root = pictures(tmp_path / "p")
    files = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(root.rglob("*.jpg"))}
    sets = [str(root), str(write_tar(tmp_path / "p.tar", files))]
    shards = tmp_path / "shards"
    shards.mkdir()
    samples = {}
    for name, data in files.items():
        samples |= {name: data, name.replace(".jpg", ".cls"): str(ANIMALS.index(name.partition("/")[0])).encode()}
    write_tar(shards / "val-0.tar", samples)
    (shards / "classes.txt").write_text("\n".join(ANIMALS))
    table = [(name.partition("/")[2], data, ANIMALS.index(name.partition("/")[0])) for name, data in files.items()]
    sets += [f"wds/{shards}", f"hfds/{parquet(tmp_path / 'rows', list(ANIMALS), table)}"]
    found = [open_dataset(spec, head=head) for spec in sets]
    assert len({each.info.digest for each in found}) == 1
    assert all(each.info.labels.tolist() == [0, 0, 1, 1, 2, 2] for each in found)
    assert [found[0].read(i) for i in range(6)] == [found[2].read(i) for i in range(6)]


def test_shards_without_a_list_number_the_outputs_themselves(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"x.jpg": jpeg(1), "x.cls": b"2", "y.jpg": jpeg(2), "y.cls": b"0"})
    found = open_dataset(f"wds/{tar}", head=ClassHead(3))
    assert found.names == ("0/y.jpg", "2/x.jpg")
    assert found.info.note == "classes by their numbers in the shards; partial: 2 of 3 classes, 2 images"
    assert refusal(f"wds/{tar}", ClassHead(2)) == (
        f"{tar}: x has label 2; expected 0 to 1, classes by their numbers in the shards"
    )


def test_numbers_that_do_not_fit_are_refused_with_what_was_found(tmp_path):
    root = pictures(tmp_path / "p", ["a", "b", "c", "d", "e", "f"], each=1)
    assert refusal(root, ClassHead(37)) == (
        f"{root} has 6 classes (a, b, c, d, e, ...), the model has 37 classes, and no list of class names was found; "
        "pass the model's own list with --class-names FILE (a name in each line, in the order of its outputs), or "
        "weights that were trained on these classes with --checkpoint"
    )
    assert "the model has 1000 classes" in refusal(root, ClassHead(1000))
    assert refusal(root, ClassHead(0)) == "the model has no classifier; use weights that were trained for classes"
    assert "and --class-names sorted takes no list; pass" in refusal(root, ClassHead(37, order=SORTED))


def test_names_that_do_not_fit_are_refused_with_both(tmp_path):
    root = pictures(tmp_path / "p")
    assert refusal(root, ClassHead(3, (listed("cat", "dog", "frog"),))) == (
        f"{root} has 3 classes (cat, dog, newt), of which newt is not in classes.txt (3 names: cat, dog, frog); rename "
        "or move them out, or pass the list that has them with --class-names"
    )


def test_two_lists_that_disagree_are_refused_unless_the_user_gives_one(tmp_path):
    root = pictures(tmp_path / "p")
    lists = (listed(*ANIMALS), listed(*SHUFFLED, source="label_names in config.json"))
    assert refusal(root, ClassHead(3, lists)) == (
        "two lists of class names disagree: class 0 is 'cat' in classes.txt and 'newt' in label_names in config.json; "
        "pass the right one with --class-names"
    )
    assert open_dataset(str(root), head=ClassHead(3, lists, chosen=listed(*ANIMALS, source="mine"))).info.labels[0] == 0


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("cat", "dog"), "classes.txt (2 names: cat, dog) does not fit the model, which has 3 classes; pass"),
        (("cat", "", "newt"), "classes.txt: class 1 has an empty name; write all names"),
        (("cat", "dog", "cat"), "classes.txt has 'cat' twice; give every class a name of its own"),
    ],
)
def test_lists_that_cannot_be_right(tmp_path, names, line):
    assert refusal(pictures(tmp_path / "p"), ClassHead(3, (listed(*names),))).startswith(line)


def test_an_empty_class_folder_shifts_nothing(tmp_path):
    root = pictures(tmp_path / "p")
    for path in (root / "dog").iterdir():
        path.unlink()
    assert refusal(root, ClassHead(3)) == (
        f"{root}: class 1 folder (dog) is empty, which in some tools shifts the classes after it; put its images "
        "there, or pass the model's list with --class-names"
    )


@pytest.mark.parametrize("names", [("Zebra", "ape"), tuple(str(number) for number in range(12))])
def test_folders_that_tools_number_differently_need_a_word(tmp_path, names):
    root = pictures(tmp_path / "p", names, each=1)
    assert "ImageFolder and timm number these folders differently" in refusal(root, ClassHead(len(names)))
    as_text = open_dataset(str(root), head=ClassHead(len(names), order=SORTED))
    as_timm = open_dataset(str(root), head=ClassHead(len(names), order=NATURAL))
    assert as_text.info.class_names == tuple(sorted(names))
    assert [name.partition("/")[0] for name in as_timm.names] == (
        ["ape", "Zebra"] if "ape" in names else [str(number) for number in range(12)]
    )
    assert as_timm.info.note.startswith("classes in the order of sorted folder names as timm sorts them")


def test_imagenet_ids_stay_what_they_are_for_a_model_of_imagenet(tmp_path):
    root = class_folders(tmp_path / "p")
    plain = open_dataset(str(root))
    for head in (ClassHead(1000), ClassHead(1000, (listed("a", "b"),)), ClassHead(21843), ClassHead(0), ANY_HEAD):
        found = open_dataset(str(root), head=head)
        assert (found.info.digest, found.info.num_classes) == (plain.info.digest, 1000)
    assert refusal(root, ClassHead(1200)).startswith(
        f"{root} has 3 classes (n01440764, n01443537, n15075141), the model has"
    )
    # A model of three classes that was trained on folders with such names.
    assert sorted({*open_dataset(str(root), head=ClassHead(3)).info.labels.tolist()}) == [0, 1, 2]
    backwards = ClassHead(1000, (listed(*reversed(wnids())),))
    assert max(open_dataset(str(root), head=backwards).info.labels) == 999 - min(plain.info.labels)


def test_parts_of_a_data_set_are_never_taken_for_classes(tmp_path):
    root = tmp_path / "p"
    for part in ("train", "val"):
        pictures(root / part)
    found = open_dataset(str(root), head=ClassHead(3))
    assert (len(found), found.info.name) == (6, "p/val")
    pictures(root / "validation")
    assert refusal(root, ClassHead(3)) == (
        f"{root} holds train, val, validation; give the part to evaluate: --data {root}/val"
    )


@pytest.mark.parametrize(
    "content",
    [
        "newt\ncat\ndog\n",
        "\ufeffnewt\r\ncat\r\ndog\r\n\r\n",
        json.dumps(SHUFFLED),
        json.dumps({"cat": 1, "dog": 2, "newt": 0}),
        json.dumps({"2": "dog", "0": "newt", "1": "cat"}),
        json.dumps({"id2label": {"0": "newt", "1": "cat", "2": "dog"}, "hidden_size": 3}),
        json.dumps({"label_names": SHUFFLED, "architecture": "deit"}),
    ],
)
def test_lists_in_every_usual_shape(tmp_path, content):
    (tmp_path / "names").write_bytes(content.encode())
    assert read_class_names(tmp_path / "names").names == SHUFFLED


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty; write a class name in each line"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"{", "is not valid JSON"),
        (b'{"a": 1}', "is no list of class names"),
        (b'{"a": 0, "b": 0}', "is no list of class names"),
        (b'{"label_names": 3}', "is no list of class names"),
        (b'{"label_names": ["a", "b"], "id2label": {"0": "a", "1": "c"}}', "disagree: class 1 is 'b' in label_names"),
        (b'{"classes": [1, 2]}', "classes in .* does not name the classes 0, 1, 2, ... once each; correct it, or give"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_files_that_are_no_lists_are_one_line(tmp_path, content, line):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(DataError, match=line) as caught:
        read_class_names(tmp_path / "names")
    assert "\n" not in str(caught.value)


def test_lists_beside_shards_must_agree(tmp_path):
    assert names_beside(tmp_path) is None
    (tmp_path / "classes.txt").write_text("a\nb")
    (tmp_path / "class_to_idx.json").write_text('{"a": 0, "b": 1}')
    assert names_beside(tmp_path).names == ("a", "b")
    (tmp_path / "class_to_idx.json").write_text('{"a": 1, "b": 0}')
    with pytest.raises(DataError, match="name other classes; take the wrong one away"):
        names_beside(tmp_path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"label_names": ["a", "b"]}, ["ab"]),
        ({"pretrained_cfg": {"label_names": ["a", "b"]}}, ["ab"]),
        ({"label_names": ["a", "b"], "pretrained_cfg": {"label_names": ["b", "a"]}}, ["ab", "ba"]),
        ({"label2id": {"a": 0, "b": 1}, "id2label": {"0": "b", "1": "a"}}, ["ab", "ba"]),
        ({"num_classes": 2}, []),
        ({"model": "x", "classes": 3, "labels": [0, 1, 1]}, []),  # settings of something else
        ([3], []),
    ],
)
def test_every_list_in_settings_is_read(tmp_path, content, names):
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert ["".join(each.names) for each in lists_in_config(tmp_path / "config.json")] == names


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True), st.randoms())
def test_a_class_has_the_number_of_its_name_whatever_the_order_and_form(names, random):
    forms = [list(names), {name: number for number, name in enumerate(names)}, dict(enumerate(names))]
    assert {as_names(form, "x").names for form in forms} == {tuple(names)}
    there = random.sample(names, random.randint(1, len(names)))
    if not {*wnids()}.isdisjoint(names):
        return
    found = map_classes("x", there, ClassHead(len(names), (ClassNames(tuple(names), "x"),)))
    assert all(names[found.numbers[name]] == name for name in there)
