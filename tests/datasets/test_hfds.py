"""Hugging Face data sets in a folder: true labels, by the names that the data set itself gives its classes."""

import importlib.util
import os
import pickle

import numpy as np
import pytest
import timm.data.readers
from image_trees import class_folders, file_name, jpeg, members, pixels
from own_trees import parquet
from timm.data import ImageNetInfo

from tomebench.datasets.classes import class_numbers, wnids
from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError
from tomebench.extras import is_installed

datasets = pytest.importorskip("datasets")

INFO = ImageNetInfo()
TITLES = [INFO.index_to_description(number) for number in range(1000)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(classes, shift=0):
    found = []
    for name, data in sorted(members().items(), reverse=True):
        wnid, _, file = name.partition("/")
        label = classes.index(wnid) if wnid in classes else class_numbers()[wnid]
        found.append((file, data, (label + shift) % len(classes)))
    return found


def refusal(folder, **options):
    """The one line with which a data set is refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(f"hfds/{folder}", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusal_can_fail(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(parquet(tmp_path / "a", list(wnids()), rows(wnids())))


@pytest.mark.parametrize("classes", [list(wnids()), ["n15075141", "n01440764", "n01443537"], TITLES])
def test_parquet_gives_the_images_of_the_class_folders(tmp_path, capfd, classes):
    folders = open_dataset(str(class_folders(tmp_path / "folders")))
    if classes is TITLES:  # a name given twice is no ClassLabel
        classes = [f"{title} {n}" if TITLES.count(title) > 1 else title for n, title in enumerate(TITLES)]
    written = parquet(tmp_path / "hub", classes, rows(classes))
    capfd.readouterr()
    found = open_dataset(f"hfds/{written}", offline=True)
    assert found.names == folders.names
    assert found.info.digest == folders.info.digest
    assert found.info.labels.tolist() == folders.info.labels.tolist()
    assert found.info.note == "split validation; partial: 3 of 1000 classes, 6 images"
    twin = pickle.loads(pickle.dumps(found))
    for mine, its in zip(pixels(twin), pixels(folders), strict=True):
        assert np.array_equal(mine, its)
    assert [twin.problem(index) for index in range(6)] == [None] * 6
    assert len({twin.stamp(index) for index in range(6)}) == 6
    assert capfd.readouterr() == ("", "")  # no progress bars of the library


def test_a_folder_of_class_folders(tmp_path, monkeypatch):
    class_folders(tmp_path / "hub", "validation/")
    monkeypatch.chdir(tmp_path)
    found = open_dataset("hfds/hub")
    assert found.info.digest == open_dataset("hub").info.digest
    assert found.read(0) == open_dataset("hub").read(0)


def test_the_test_split_if_there_is_no_other(tmp_path):
    assert open_dataset(f"hfds/{parquet(tmp_path / 'a', list(wnids()), rows(wnids()), 'test')}").info.note.startswith(
        "split test; partial"
    )
    assert "has only the split train; expected validation or test" in refusal(
        parquet(tmp_path / "b", list(wnids()), rows(wnids()), "train")
    )


def test_another_number_of_classes_is_said(tmp_path):
    found = open_dataset(f"hfds/{parquet(tmp_path / 'a', ['cat', 'dog'], [('x', jpeg(1), 1), ('y', jpeg(2), 0)])}")
    assert found.info.num_classes == 2
    assert found.names == ("cat/y", "dog/x")
    assert found.info.note == "split validation; classes in the data set's own order; 2 classes, 2 images"


def test_files_without_names_are_numbered_by_row(tmp_path):
    given = [(None, jpeg(2), 5), (None, jpeg(1), 5)]
    found = open_dataset(f"hfds/{parquet(tmp_path / 'a', list(wnids()), given)}")
    assert found.names == (f"{wnids()[5]}/00000000", f"{wnids()[5]}/00000001")
    assert found.read(0) == jpeg(2)


def test_shifted_labels_are_noticed_by_titles_and_by_file_names(tmp_path):
    shifted = [*TITLES[1:], TITLES[0]]
    shifted = [f"{title} {n}" if TITLES.count(title) > 1 else title for n, title in enumerate(shifted)]
    assert (
        "label 0 is goldfish, Carassius auratus, which is class 1 of ImageNet-1k; its labels are numbered"
        in refusal(parquet(tmp_path / "a", shifted, rows(shifted)))
    )
    named = [("ILSVRC2012_val_00000001_n01440764.JPEG", jpeg(1), 1)]
    assert "its name says class 0 (n01440764), its label says 1 (n01443537)" in refusal(
        parquet(tmp_path / "b", list(wnids()), named)
    )
    assert "labels cat are no class ids; take them out" in refusal(
        parquet(tmp_path / "c", ["n01440764", "cat"], [("x", jpeg(1), 0)])
    )


def test_a_thousand_unknown_names_are_no_order(tmp_path):
    row = [("x", jpeg(1), 3)]
    assert "labels thing 0, thing 1, thing 2, ... are neither class ids nor classes of" in refusal(
        parquet(tmp_path / "a", [f"thing {n}" for n in range(1000)], row)
    )
    found = open_dataset(f"hfds/{parquet(tmp_path / 'b', [str(n) for n in range(1000)], row)}")
    assert found.names == (f"{wnids()[3]}/x",)


def test_images_without_a_label_or_that_cannot_be_read(tmp_path):
    assert "1 of 2 images without a label in its split validation" in refusal(
        parquet(tmp_path / "a", list(wnids()), [("x", jpeg(1), -1), ("y", jpeg(1), 0)])
    )
    cut = parquet(tmp_path / "b", list(wnids()), [(file_name(1), jpeg(1)[:80], 0), (file_name(2), jpeg(1), 1)])
    found = open_dataset(f"hfds/{cut}")
    assert found.problem(0).startswith(f"n01440764/{file_name(1)} (")
    assert found.problem(1) is None
    with pytest.raises(DataError, match=f"^cannot read image n01440764/{file_name(1)}: .*; replace it, or take it out"):
        found.open(0)


def test_columns_of_other_names_or_kinds(tmp_path):
    table = datasets.Dataset.from_dict({"image": [{"path": None, "bytes": jpeg(1)}], "label": [3]})
    (tmp_path / "a").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "a" / "validation.parquet")
    assert "its column label has no class names; write it as ClassLabel" in refusal(tmp_path / "a")
    (tmp_path / "b").mkdir()
    table.rename_column("image", "picture").to_parquet(tmp_path / "b" / "validation.parquet")
    assert "has no images in a column image; name its columns image and label" in refusal(tmp_path / "b")
    assert "no such folder; give hfds/FOLDER, or hfds/OWNER/NAME on the hub" in refusal(tmp_path / "gone")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "validation.parquet").write_bytes(b"no parquet")
    assert "give a data set with columns image and label" in refusal(tmp_path / "c")


def test_without_the_library(monkeypatch, capfd):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasets" else found(name))
    assert refusal("owner/name") == ("--data hfds/owner/name needs the datasets library; pip install 'tomebench[hf]'")
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_the_name_of_a_library_is_no_library(tmp_path, monkeypatch):
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("no_such_library") is not None
    assert not is_installed("no_such_library")
    assert is_installed("datasets")


def test_offline_nothing_is_fetched():
    assert "Offline" in refusal("nobody/nothing-of-this-name", offline=True)


def test_a_row_that_names_a_file_elsewhere_is_refused(tmp_path):
    """A table of paths may name any file of the machine."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(1))
    inside = tmp_path / "hub" / "own.jpg"
    inside.parent.mkdir()
    inside.write_bytes(jpeg(2))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(wnids()))})
    images = [{"bytes": None, "path": str(path)} for path in (inside, secret)]
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features)
    pyarrow_write(
        table,  # to_parquet would put the files themselves into it
        tmp_path / "hub" / "validation-0.parquet",
    )
    found = open_dataset(f"hfds/{tmp_path / 'hub'}")
    assert found.open(0).size == (24, 16)
    with pytest.raises(DataError, match=r"secret\.jpg lies outside of the data set"):
        found.open(1)
    assert "lies outside of the data set" in found.problem(1)


def pyarrow_write(table, path):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table.data.table, path)


def test_settings_that_name_files_elsewhere_are_refused(tmp_path):
    parquet(tmp_path / "elsewhere", list(wnids()), rows(wnids()))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: validation\n"
        f"    path: {tmp_path}/elsewhere/*.parquet\n---\n"
    )
    assert "which lies outside of the data set" in refusal(tmp_path / "hub")


def test_a_file_behind_a_row_that_changes_changes_its_stamp(tmp_path):
    class_folders(tmp_path / "hub", "validation/")
    found = open_dataset(f"hfds/{tmp_path / 'hub'}")
    before = [found.state(index) for index in range(6)]
    path = next((tmp_path / "hub").rglob(file_name(1)))
    stat = path.stat()
    path.write_bytes(jpeg(99))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = [found.state(index) for index in range(6)]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def replaced(path, folder):
    """Another file in the place of one, with its time of change: as ``cp -p`` and ``rsync -t`` leave it."""
    stat = path.stat()
    (folder / path.name).replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("labels", [True, False])
def test_a_parquet_file_that_another_one_of_the_same_time_replaces_is_read_anew(tmp_path, labels):
    path = next(parquet(tmp_path / "hub", ["a", "b"], [("x", jpeg(1), 0), ("y", jpeg(2), 1)]).iterdir())
    before = open_dataset(f"hfds/{tmp_path / 'hub'}", labels=labels)
    again = open_dataset(f"hfds/{tmp_path / 'hub'}", labels=labels)
    assert [again.state(index) for index in range(2)] == [before.state(index) for index in range(2)]
    replaced(path, parquet(tmp_path / "new", ["c", "d"], [("x", jpeg(3), 0), ("y", jpeg(4), 1)]))
    after = open_dataset(f"hfds/{tmp_path / 'hub'}", labels=labels)
    assert [after.read(index) for index in range(2)] == [jpeg(3), jpeg(4)]
    assert {before.state(index) for index in range(2)}.isdisjoint(after.state(index) for index in range(2))
    assert after.info.class_names == (("c", "d") if labels else ())
    assert [before.read(index) for index in range(2)] == [jpeg(1), jpeg(2)]  # for whoever is at it


def test_the_tables_of_earlier_states_are_removed_after_a_while(tmp_path):
    path = next(parquet(tmp_path / "hub", ["a"], [("x", jpeg(1), 0)]).iterdir())

    def tables():
        open_dataset(f"hfds/{tmp_path / 'hub'}")
        return {table.parents[4].name for table in (tmp_path / "cache" / "tomebench").rglob("*.arrow")}

    first = tables()
    replaced(path, parquet(tmp_path / "new", ["a"], [("x", jpeg(2), 0)]))
    assert len(tables()) == 2
    (old,) = (tmp_path / "cache" / "tomebench").glob(f"*/{first.pop()}")
    os.utime(old, (1, 1))
    assert len(tables()) == 1
    assert not old.exists()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = next(parquet(tmp_path / "hub", ["a"], [("x", jpeg(1), 0)]).iterdir())
    parquet(tmp_path / "new", ["a"], [("x", jpeg(2), 0)])
    create = timm.data.readers.create_reader

    def create_slowly(*arguments, **options):
        replaced(path, tmp_path / "new")
        return create(*arguments, **options)

    monkeypatch.setattr(timm.data.readers, "create_reader", create_slowly)
    assert refusal(tmp_path / "hub").endswith("/hub changed while it was read; run the same command again")


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    (tmp_path / "link").symlink_to(parquet(tmp_path / "hub", ["a"], [("x", jpeg(1), 0)]))
    assert open_dataset(f"hfds/{tmp_path / 'link'}").read(0) == jpeg(1)
