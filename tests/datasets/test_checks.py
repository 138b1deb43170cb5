"""What is wrong with a set is found before it is used, all at once; what may be left out is left out, and said."""

import hashlib
import os
import shutil
import subprocess

import numpy as np
import pytest
from image_trees import GOLDFISH, LAST, TENCH, class_folders, file_name, jpeg, pixels, write_tar
from PIL import Image

from tomebench.datasets.checks import check_images, checksums
from tomebench.datasets.images import open_dataset
from tomebench.datasets.manifest import read_manifest, write_manifest
from tomebench.errors import DataError, StorageError

FIRST, SECOND = f"{TENCH}/{file_name(1)}", f"{GOLDFISH}/{file_name(7)}"


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "set")


@pytest.fixture
def manifest(root, tmp_path):
    image_set = open_dataset(str(root))
    write_manifest(tmp_path / "sums", dict(zip(image_set.paths, checksums(image_set), strict=True)))
    return tmp_path / "sums"


def write_sums(path, name=FIRST):
    path.write_text(f"{'0' * 64}  {name}\n")
    return path


def refusal(root, limit=None, **options):
    """The one line with which images are refused."""
    with pytest.raises(DataError) as caught:
        check_images(open_dataset(str(root), limit=limit), whole=limit is None, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_refusal_can_fail(root, manifest):
    with pytest.raises(pytest.fail.Exception):
        refusal(root, verify=manifest)


def flip(path):
    """Change one bit in the middle of the picture, so that it still decodes; return the path."""
    data = path.read_bytes()
    before = np.asarray(Image.open(path).convert("RGB"))
    for offset in range(len(data) - 40, 0, -1):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        try:
            after = np.asarray(Image.open(path).convert("RGB"))
        except (OSError, SyntaxError, ValueError):
            continue
        if before.shape == after.shape and not np.array_equal(before, after):
            return path
    raise AssertionError("every flip was noticed")


def break_inside(path):
    """Damage that the first and last bytes do not show."""
    data = path.read_bytes()
    path.write_bytes(data[:20] + b"\0" * (len(data) - 40) + data[-20:])


def test_up_to_so_many_unreadable_files_are_left_out(root):
    whole = open_dataset(str(root))
    expected = pixels(whole)[2:]
    (root / FIRST).write_bytes(b"")
    (root / SECOND).write_text("<html>")
    left = check_images(open_dataset(str(root)), allow_missing=2)
    assert left.info.note == ("partial: 3 of 1000 classes, 6 images; without 2 unreadable files, 4 images")
    assert left.names == whole.names[2:]
    assert left.info.labels.tolist() == whole.info.labels.tolist()[2:]
    for mine, its in zip(pixels(left), expected, strict=True):
        assert np.array_equal(mine, its)
    (root / FIRST).unlink()
    (root / SECOND).unlink()
    assert left.info.digest == open_dataset(str(root)).info.digest  # as if they had never been there


def test_more_than_that_is_refused_with_both_numbers(root):
    (root / FIRST).write_bytes(b"")
    (root / SECOND).write_text("<html>")
    assert refusal(root, allow_missing=1) == (
        f"of 6 images in set, 2 cannot be read: {FIRST} (empty file), {SECOND} (not an image) (--allow-missing is 1); "
        "replace them, or leave them out with --allow-missing 2"
    )


def test_damage_inside_a_file_is_looked_for_when_files_may_be_left_out(root):
    break_inside(root / SECOND)
    image_set = open_dataset(str(root))
    assert check_images(image_set) is image_set  # a cheap look does not see it
    left = check_images(image_set, allow_missing=1)
    assert left.info.note.endswith("without 1 unreadable file, 5 images")
    assert SECOND not in left.names
    (root / FIRST).write_bytes(b"")
    assert f"2 cannot be read: {FIRST} (empty file), {SECOND} (" in refusal(root, allow_missing=1)


def test_nothing_wrong_changes_nothing(root, manifest):
    image_set = open_dataset(str(root))
    assert check_images(image_set, allow_missing=9, verify=manifest) is image_set


def test_nothing_left(root):
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    assert "none of the 6 images in set can be used" in refusal(root, allow_missing=6)


def test_a_flipped_bit_is_caught_by_its_checksum_only(root, manifest):
    flip(root / FIRST)
    image_set = open_dataset(str(root))
    assert check_images(image_set) is image_set
    image_set.open(0)
    assert refusal(root, verify=manifest) == (
        f"of 6 images in set, against {manifest}, 1 changed: {FIRST}; replace them, or leave them out with "
        "--allow-missing 1"
    )


def test_flip_can_fail(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(AssertionError, match="every flip"):
        flip(tmp_path / "a.png")  # whose own checksums notice


def test_changed_missing_unlisted_and_unreadable_in_one_line(root, manifest):
    flip(root / FIRST)
    (root / SECOND).unlink()
    (root / LAST / "new.JPEG").write_bytes(jpeg(3))
    (root / LAST / file_name(2)).write_bytes(b"")
    assert refusal(root, verify=manifest) == (
        f"of 6 images in set, against {manifest}, 2 changed: {FIRST}, {LAST}/{file_name(2)}; 1 missing: {SECOND}; "
        f"1 not listed: {LAST}/new.JPEG; replace them, or leave them out with --allow-missing 3 and move those not "
        "listed out"
    )
    assert "move those not listed out" in refusal(root, verify=manifest, allow_missing=3)
    (root / LAST / "new.JPEG").unlink()
    left = check_images(open_dataset(str(root)), verify=manifest, allow_missing=3)
    assert left.info.note.endswith("without 2 changed and 1 missing files, 3 images")


def test_missing_files_alone_leave_the_list_as_it_is(root, manifest):
    (root / SECOND).unlink()
    image_set = open_dataset(str(root))
    left = check_images(image_set, verify=manifest, allow_missing=1)
    assert left.info.digest == image_set.info.digest
    assert left.info.note.endswith("without 1 missing file, 5 images")


def test_of_a_subset_its_own_images_are_verified(root, manifest):
    image_set = open_dataset(str(root), limit=2)
    for name in set(open_dataset(str(root)).paths) - set(image_set.paths):
        flip(root / name)
    assert check_images(open_dataset(str(root), limit=2), verify=manifest, whole=False).names == image_set.names
    flip(root / image_set.paths[1])
    assert f"1 changed: {image_set.paths[1]}" in refusal(root, limit=2, verify=manifest)


def test_members_of_a_tar_are_verified_like_files(tmp_path, root, manifest):
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.glob("*/*"))}
    tar = write_tar(tmp_path / "val.tar", files)
    check_images(open_dataset(str(tar)), verify=manifest)
    files[FIRST] = jpeg(4)
    assert f"1 changed: {FIRST}" in refusal(write_tar(tar, files), verify=manifest)


def test_a_manifest_of_something_else(root, tmp_path):
    assert refusal(root, verify=write_sums(tmp_path / "sums", f"val/{FIRST}")) == (
        f"--verify {tmp_path}/sums lists no file of set; its names must be like {FIRST}"
    )
    for text, message in [
        ("", "lists no files"),
        ("x  y\n", "line 1 is not a sha256 checksum and a name"),
        (f"{'0' * 64}  a\n{'0' * 40}  b\n", "line 2 is not"),
        (f"{'0' * 64}  a\n{'0' * 64}  b\n{'1' * 64}  ./a\n", "line 3 gives a another checksum than a line before"),
    ]:
        (tmp_path / "sums").write_text(text)
        assert message in refusal(root, verify=tmp_path / "sums")
    assert "No such file or directory; tomebench doctor --data DIR --manifest FILE writes one" in refusal(
        root, verify=tmp_path / "gone"
    )
    with pytest.raises(DataError, match="digits is part of the package and has no files to verify"):
        check_images(open_dataset("digits"), verify=write_sums(tmp_path / "sums"))


STRANGE = {
    f"{TENCH}/a.JPEG",
    os.fsdecode(b"caf\xe9.JPEG"),
    "new\nline.JPEG",
    "car\rriage",
    r"back\slash\n",
    " a  b",
    "*",
}


def test_manifests_keep_every_name(tmp_path):
    sums = {name: hashlib.sha256(os.fsencode(name)).hexdigest() for name in STRANGE}
    write_manifest(tmp_path / "sums", sums)
    assert read_manifest(tmp_path / "sums") == sums
    with pytest.raises(StorageError, match="cannot be written"):
        write_manifest(tmp_path / "gone" / "sums", sums)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the sha256sum tool")
def test_manifests_are_those_of_the_tool(tmp_path):
    (tmp_path / TENCH).mkdir()
    for name in STRANGE:
        (tmp_path / name).write_bytes(os.fsencode(name))
    names = sorted(STRANGE)
    theirs = subprocess.run(["sha256sum", "--", *names], cwd=tmp_path, capture_output=True, check=True).stdout
    write_manifest(tmp_path / "sums", {name: hashlib.sha256(os.fsencode(name)).hexdigest() for name in names})
    assert (tmp_path / "sums").read_bytes() == theirs
    assert subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "sums"], cwd=tmp_path).returncode == 0
    binary = subprocess.run(["sha256sum", "-b", f"./{TENCH}/a.JPEG"], cwd=tmp_path, capture_output=True).stdout
    (tmp_path / "binary").write_bytes(binary)
    assert set(read_manifest(tmp_path / "binary")) == {f"{TENCH}/a.JPEG"}


@pytest.mark.parametrize("options", [{"allow_missing": 1}, {"verify": True}])
def test_a_long_look_can_be_stopped(root, manifest, options):
    class Asked(Exception):
        pass

    turns = []

    def stop():
        turns.append(0)
        if len(turns) > 3:
            raise Asked

    if "verify" in options:
        options = {"verify": manifest}
    with pytest.raises(Asked):
        check_images(open_dataset(str(root)), **options, stop_if_asked=stop)
    assert len(turns) == 4


def test_a_manifest_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tomebench.whole.write_new", full)
    with pytest.raises(StorageError, match="No space left on device; give --manifest elsewhere"):
        write_manifest(tmp_path / "sums", {"a": "0" * 64})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_windows_wrote_says_the_same(tmp_path, manifest):
    plain = manifest.read_bytes()
    assert b"\r" not in plain
    for name, written in (("crlf", plain.replace(b"\n", b"\r\n")), ("bom", b"\xef\xbb\xbf" + plain)):
        (tmp_path / name).write_bytes(written)
        assert read_manifest(tmp_path / name) == read_manifest(manifest)


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_manifest(tmp_path / "pipe")
