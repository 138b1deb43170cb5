"""Rules that all readers keep: which files are images, what a class id in a name says, which names are one."""

import pytest
from image_trees import GOLDFISH, LAST, TENCH, jpeg, true_wnids, write_tar
from own_trees import refusal

from tomebench.datasets.classes import ANY_HEAD, ClassHead, ClassNames, wnids
from tomebench.datasets.decode import FORMATS
from tomebench.datasets.images import open_dataset
from tomebench.datasets.truth import SYNSETS


def write_folders(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("name", [f"{TENCH}_100.JPEG", f"{TENCH}/a.JPEG", f"val_00000001_{TENCH}.JPEG"])
def test_an_image_of_another_class_by_its_name_is_refused(tmp_path, name, in_tar):
    """One file, or a whole class folder, that was moved into the folder of another class."""
    files = {f"{GOLDFISH}/{name}": jpeg(1), f"{GOLDFISH}/{GOLDFISH}_7.JPEG": jpeg(2), f"{LAST}/a.JPEG": jpeg(3)}
    spec = write_tar(tmp_path / "a.tar", files) if in_tar else write_folders(tmp_path / "data", files)
    own_list = ClassHead(1000, (ClassNames(tuple(reversed(wnids())), "classes.txt"),))
    for head, said in ((None, "0 (n01440764), its label says 1"), (own_list, "999 (n01440764), its label says 998")):
        expected = f"{GOLDFISH}/{name}: its name says class {said} (n01443537); it lies in a wrong folder"
        assert refusal(spec, head).startswith(expected)


def test_a_name_with_the_id_of_its_own_class_and_another_is_of_its_own(tmp_path):
    """An image that was put together of two, or made to be taken for another."""
    files = {f"{TENCH}/{TENCH}_{GOLDFISH}_mix.JPEG": jpeg(1), f"{GOLDFISH}/{TENCH}_adv_to_{GOLDFISH}.JPEG": jpeg(2)}
    assert len(open_dataset(str(write_folders(tmp_path, files)))) == 2


def test_an_id_in_the_name_of_an_image_of_own_classes_says_nothing(tmp_path):
    files = {f"cat/{TENCH}_1.JPEG": jpeg(1), f"dog/{TENCH}/a.JPEG": jpeg(2), f"dog/{GOLDFISH}_1.JPEG": jpeg(3)}
    assert len(open_dataset(str(write_folders(tmp_path, files)), head=ClassHead(2))) == 3


def test_numbered_folders_and_files_are_looked_at_for_ids_in_names_too(tmp_path):
    write_folders(tmp_path / "v2", {f"1/{TENCH}_1.JPEG": jpeg(1)})
    assert "its name says class 0 (n01440764), its label says 1" in refusal(f"imagenetv2/{tmp_path}/v2", None)
    tar = write_tar(tmp_path / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_00000001_{GOLDFISH}.JPEG": jpeg(1)})
    (tmp_path / SYNSETS).write_text("\n".join(true_wnids()) + "\n")
    assert "its name says class 1 (n01443537), its label says 0" in refusal(tar, None)


def test_all_readers_take_images_of_all_formats(tmp_path):
    """By their names; what is in them is told by their bytes."""
    suffixes = [suffix for suffixes in FORMATS.values() for suffix in suffixes]
    files = {f"{TENCH}/{n}.{suffix}": jpeg(n) for n, suffix in enumerate(suffixes)}
    tar = write_tar(tmp_path / "a.tar", files)
    shard = write_tar(tmp_path / "b.tar", {**files, **{f"{TENCH}/{n}.cls": b"0" for n in range(len(files))}})
    for spec in (write_folders(tmp_path / "folder", files), tar, f"wds/{shard}"):
        assert {*open_dataset(str(spec)).names} == {*files}
        assert {*open_dataset(str(spec), labels=False).names} == {*files}


CAFE = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("names", [("Cat", "cat"), CAFE, ("Caf\xe9", CAFE[1]), ("\xe9", "e\N{COMBINING ACUTE ACCENT}")])
def test_class_folders_that_are_one_on_other_machines_are_refused(tmp_path, names, in_tar):
    files = {f"{name}/{n}.jpg": jpeg(n) for n, name in enumerate((*names, "newt"))}
    spec = write_tar(tmp_path / "a.tar", files) if in_tar else write_folders(tmp_path / "data", files)
    first, second = map(ascii, sorted(names))
    for head in (ClassHead(3), ClassHead(3, order="sorted"), ClassHead(3, order="natural"), ANY_HEAD):
        found = refusal(spec, head)
        assert found.startswith(f"{spec}: the folders {first} and {second} differ in capitals or the coding of accents")
    both = ClassHead(3, (ClassNames((*names, "newt"), "classes.txt"),))  # to which they are two classes
    assert open_dataset(str(spec), head=both).info.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("names", [("Cat.jpg", "cat.JPG"), tuple(f"{name}.jpg" for name in CAFE)])
def test_files_that_are_one_on_other_machines_are_refused(tmp_path, names, in_tar):
    files = {f"{TENCH}/{name}": jpeg(n) for n, name in enumerate(names)}
    spec = write_tar(tmp_path / "a.tar", files) if in_tar else write_folders(tmp_path / "data", files)
    assert " differ in capitals or the coding of accents only, which would count twice; " in refusal(spec, None)
