"""Shards are read in place, in the order of the labels; a label that contradicts the image's name is refused."""

import json

import numpy as np
import pytest
from image_trees import class_folders, file_name, jpeg, members, pixels, write_tar

from tomebench.datasets.imagenet import class_numbers
from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError


def samples(shift=0, suffix="JPEG", label="cls", keep=slice(None), named=False):
    """The images of the class folders as samples, in an order that is not theirs."""
    found = {}
    for name, data in sorted(members().items(), reverse=True)[keep]:
        wnid, _, file = name.partition("/")
        key = f"{wnid}/{file.removesuffix('.JPEG')}" if named else file.removesuffix(".JPEG")
        number = (class_numbers()[wnid] + shift) % 1000
        found[f"{key}.{suffix}"] = data
        found[f"{key}.{label}"] = f"{number}\n".encode() if label == "cls" else json.dumps({"label": number}).encode()
    return found


def refusal(path):
    """The one line with which shards are refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(f"wds/{path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusal_can_fail(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(write_tar(tmp_path / "a.tar", samples()))


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_give_the_images_of_the_class_folders(tmp_path, label):
    folders = open_dataset(str(class_folders(tmp_path / "folders")))
    shards = tmp_path / "shards"
    shards.mkdir()
    for part, keep in enumerate((slice(0, 2), slice(2, None))):
        write_tar(shards / f"imagenet1k-validation-{part}.tar", samples(suffix="jpeg", label=label, keep=keep))
    write_tar(shards / "imagenet1k-train-0.tar", {"other.jpg": jpeg(5), "other.cls": b"5"})
    (shards / "_info.json").write_text("{}")
    found = open_dataset(f"wds/{shards}")
    assert found.info.labels.tolist() == folders.info.labels.tolist()
    assert [name.removesuffix(".jpeg") for name in found.names] == [n.removesuffix(".JPEG") for n in folders.names]
    for mine, its in zip(pixels(found), pixels(folders), strict=True):
        assert np.array_equal(mine, its)
    assert found.info.note == "partial: 3 of 1000 classes, 6 images"


def test_one_shard(tmp_path):
    assert len(open_dataset(f"wds/{write_tar(tmp_path / 'a.tar', samples(suffix='png', named=True))}")) == 6


def test_keys_that_only_their_shard_tells_apart(tmp_path):
    for part in "ab":
        write_tar(tmp_path / f"{part}.tar", {"0.jpg": jpeg(ord(part)), "0.cls": b"7"})
    assert open_dataset(f"wds/{tmp_path}").names == ("n01514668/a/0.jpg", "n01514668/b/0.jpg")


def test_keys_that_only_their_folder_tells_apart(tmp_path):
    sample = {
        f"{folder}/0.{kind}": data for folder in "ab" for kind, data in (("jpg", jpeg(ord(folder))), ("cls", b"7"))
    }
    assert open_dataset(f"wds/{write_tar(tmp_path / 's.tar', sample)}").names == (
        "n01514668/s/a/0.jpg",
        "n01514668/s/b/0.jpg",
    )


def test_labels_that_the_names_contradict(tmp_path):
    tar = write_tar(tmp_path / "a.tar", samples(shift=1, suffix="jpg", named=True))
    key = f"n15075141/{file_name(50_000).removesuffix('.JPEG')}"
    assert refusal(tar) == (
        f"{key}: its name says class 999 (n15075141), its label says 0 (n01440764); it lies in a wrong folder, or the "
        "labels belong to other images or are numbered in another order"
    )
    open_dataset(f"wds/{write_tar(tmp_path / 'b.tar', samples(shift=1, suffix='jpg'))}")  # numbers alone say nothing


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": b""}, "a has no label; write a.cls with the class's number"),
        ({"a.jpg": b"", "a.json": b"[]"}, "a has no label"),
        (
            {"a.jpg": b"", "a.cls": b"cat"},
            "a has a label that is no whole number, or two of them; write the shards again",
        ),
        (
            {"a.jpg": b"", "a.json": b'{"label": 3, "label": 4}'},
            "a has a label that is no whole number, or two of them",
        ),
        ({"a.jpg": b"", "a.json": b'{"label": true}'}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.json": b'{"label": "1_0"}'}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.cls": b"1_0"}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.cls": "\uff13".encode()}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.JPG": b"", "a.cls": b"3"}, "a has jpg and JPG, and nothing says which is meant"),
        ({"a.jpg": b"", "a.jpeg": b"", "a.cls": b"3"}, "a has jpg and jpeg, and nothing says which is meant"),
        ({"a.png": b"", "a.tif": b"", "a.tiff": b"", "a.apng": b"", "a.cls": b"3"}, "a has png and apng, and nothing"),
        ({"a.jpg": b"", "a.json": b'{"label": 3.5}'}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.json": b"{"}, "a has a label that is no whole number"),
        ({"a.jpg": b"", "a.cls": b"1000"}, "a has label 1000; expected 0 to 999, numbered by the sorted class ids"),
        ({"a.jpg": b"", "a.cls": b"3", "a.json": b'{"label": 4}'}, "a has two labels, .cls says 3 and .json says 4"),
        ({"a.cls": b"3", "b": b""}, "no images in the shards; a sample is KEY.jpg with KEY.cls"),
    ],
)
def test_samples_without_a_true_label(tmp_path, files, message):
    assert message in refusal(write_tar(tmp_path / "a.tar", files))


def test_a_mask_beside_a_picture_is_no_picture(tmp_path):
    both = {f"{name.partition('.')[0]}.png": b"mask" for name in samples(suffix="jpg")}
    found = open_dataset(f"wds/{write_tar(tmp_path / 'a.tar', {**samples(suffix='jpg'), **both})}")
    assert {name.rpartition(".")[2] for name in found.names} == {"jpg"}
    assert len(found.extra) == len(found.names)


def test_a_shard_beside_its_copy(tmp_path):
    first = write_tar(tmp_path / "val-0.tar", samples())
    second = tmp_path / "val-0 (1).tar"
    second.write_bytes(first.read_bytes())
    assert refusal(tmp_path) == f"{second} and {first} are the same shard; take one of them away"


def test_folders_without_validation_shards(tmp_path):
    assert "no .tar shards there; give the folder that holds them, or one of them" in refusal(tmp_path)
    write_tar(tmp_path / "train-0.tar", samples())
    assert "only training shards (train-0.tar); none named *val*" in refusal(tmp_path)


def test_hidden_files_are_no_shards(tmp_path):
    """What macOS leaves beside every file that it unpacks."""
    write_tar(tmp_path / "val-0.tar", samples())
    (tmp_path / "._val-0.tar").write_bytes(b"Mac OS X")
    assert len(open_dataset(f"wds/{tmp_path}")) == 6
