"""A tar is read in place whole, or refused in one line that says what is wrong with it."""

import io
import os
import tarfile

import pytest
from image_trees import GOLDFISH, TENCH, file_name, jpeg, members, write_tar

from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError


def refusal(spec, **options):
    """The one line with which a data set is refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(spec), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_refusal_can_fail(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        refusal(write_tar(tmp_path / "a.tar", members()))


def test_names_in_a_tar_that_are_not_utf8(tmp_path):
    name = os.fsdecode(f"{TENCH}/".encode() + b"caf\xe9\n.JPEG")
    with tarfile.open(tmp_path / "val.tar", "w", encoding="utf-8", errors="surrogateescape") as tar:
        info = tarfile.TarInfo(name)
        tar.addfile(info)
    found = open_dataset(str(tmp_path / "val.tar"))
    assert found.names == (name,)
    assert found.problem(0) == rf"{TENCH}/caf\udce9\n.JPEG (empty file)"


def test_tars_that_cannot_be_read_in_place(tmp_path):
    packed = write_tar(tmp_path / "val.tar.gz", members(), "w:gz")
    assert refusal(packed) == (
        f"{packed} is compressed, so its images cannot be read in place; decompress it first (gzip -d)"
    )
    (tmp_path / "page.tar").write_text("<html>not found</html>")
    assert f"{tmp_path}/page.tar is not a tar" in refusal(tmp_path / "page.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    assert "is not a tar (empty file); give a folder or a tar, or fetch it again" in refusal(tmp_path / "empty.tar")


def test_a_tar_that_is_cut_off_anywhere_is_refused(tmp_path):
    whole = write_tar(tmp_path / "val.tar", members()).read_bytes()
    with tarfile.open(tmp_path / "val.tar") as tar:
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in tar)
    cut = tmp_path / "cut.tar"
    for length in (*range(0, end, 97), *range(512, end + 1, 512)):  # also exactly between two members
        cut.write_bytes(whole[:length])
        assert "fetch it again" in refusal(cut)
    cut.write_bytes(whole[: end - 512])
    assert refusal(cut) == (f"{cut} is cut off or damaged after 6 files; fetch it again and compare its checksum")
    for offset in range(512 * 2, end, 512):  # a header that is overwritten hides all that follow it
        damaged = bytearray(whole)
        if damaged[offset + 257 : offset + 262] == b"ustar":
            damaged[offset : offset + 512] = b"\xff" * 512
            cut.write_bytes(damaged)
            assert "cut off or damaged" in refusal(cut)


def add(tar, name, kind, link=""):
    """A member of another kind, at the end of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    if kind == tarfile.REGTYPE:  # a sparse file as tar --sparse writes it by default
        info.pax_headers = {"GNU.sparse.size": "0", "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,0"}
    with tarfile.open(tar, "a", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info)
    return tar


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("spec", ["", "wds/"])
@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        (f"{TENCH}/b.JPEG", tarfile.SYMTYPE, f"a link to {file_name(1)}"),
        (f"{TENCH}/b.JPEG", tarfile.LNKTYPE, f"a hard link to {file_name(1)}"),
        (f"{TENCH}/b.JPEG", tarfile.REGTYPE, "a sparse file"),
        (f"{TENCH}/b.JPEG", tarfile.CHRTYPE, "no plain file"),
        (f"{TENCH}/b.JPEG", b"M", "no plain file"),  # the rest of a file that began in another volume
        (GOLDFISH, tarfile.SYMTYPE, f"a link to {TENCH}"),  # all of a class folder
    ],
)
def test_what_holds_no_bytes_of_its_own_is_refused(tmp_path, name, kind, what, spec, labels):
    """Unpacked it would be one more image, or many."""
    tar = write_tar(tmp_path / "val.tar", {f"{TENCH}/a.JPEG": jpeg(1), f"{TENCH}/a.cls": b"0"})
    add(tar, name, kind, TENCH if name == GOLDFISH else file_name(1))
    assert refusal(f"{spec}{tar}", labels=labels) == (
        f"{tar}: {name} is {what}, which cannot be read in place; write the tar again with --dereference "
        "--hard-dereference and without --sparse"
    )


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("latest", tarfile.SYMTYPE, "val"),
        ("val/README.md", tarfile.SYMTYPE, "../README.md"),
        ("val/notes.txt", tarfile.LNKTYPE, "val/notes.txt"),
        ("val/pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_links_that_add_no_image_are_left_alone(tmp_path, name, kind, link):
    tar = add(write_tar(tmp_path / "a.tar", {f"val/{TENCH}/a.JPEG": jpeg(1)}), name, kind, link)
    assert len(open_dataset(str(tar))) == 1


def test_a_link_that_a_later_file_takes_the_place_of_is_that_file(tmp_path):
    tar = add(
        write_tar(tmp_path / "val.tar", {f"{TENCH}/a.JPEG": jpeg(1)}), f"{TENCH}/b.JPEG", tarfile.SYMTYPE, "a.JPEG"
    )
    with tarfile.open(tar, "a") as file:
        info = tarfile.TarInfo(f"{TENCH}/b.JPEG")
        info.size = len(jpeg(2))
        file.addfile(info, io.BytesIO(jpeg(2)))
    assert open_dataset(str(tar)).names == (f"{TENCH}/a.JPEG", f"{TENCH}/b.JPEG")
    add(tar, f"{TENCH}/b.JPEG", tarfile.LNKTYPE, f"{TENCH}/a.JPEG")
    assert "b.JPEG is a hard link to n01440764/a.JPEG" in refusal(tar)


@pytest.mark.parametrize("kind", ["headers upon headers", "a size that no file has", "a sparse file of no version"])
def test_a_tar_that_was_made_to_mislead_is_one_line(tmp_path, kind):
    path = tmp_path / "val.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("n01440764/a.JPEG")
        if kind == "a size that no file has":
            member.pax_headers = {"size": "9" * 40}
        if kind == "a sparse file of no version":
            member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        tar.addfile(member)
    if kind == "headers upon headers":
        header = tarfile.TarInfo("x")
        header.type = tarfile.XHDTYPE
        path.write_bytes(header.tobuf() * 3000 + bytes(1024))
    found = refusal(path)
    assert f"{path} is " in found
    assert "not a tar" in found or "cut off or damaged" in found


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("spec", ["", "wds/"])
def test_a_member_under_too_many_folders_is_refused_at_once(tmp_path, spec, labels):
    """To list 150 000 folders, each with the path to it, takes twenty gigabytes."""
    tar = write_tar(tmp_path / "deep.tar", {f"{TENCH}/" + "d/" * 150_000 + "a.JPEG": jpeg(1)})
    with pytest.raises(DataError, match=r"d/d/d.* is a path of 300016 characters, longer than any file system allows"):
        open_dataset(f"{spec}{tar}", labels=labels)


def test_a_member_of_negative_size_is_refused(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {f"{TENCH}/a.JPEG": jpeg(1), f"{TENCH}/b.JPEG": jpeg(2)})
    data = bytearray(tar.read_bytes())
    data[124:136] = b"\xff" * 12
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    tar.write_bytes(data)
    with pytest.raises(DataError, match="is cut off or damaged"):
        open_dataset(str(tar))


@pytest.mark.parametrize("spec", ["{}", "wds/{}", "wds/{}/..", "imagenetv2/{}"])
def test_a_pipe_in_place_of_a_tar_is_not_waited_for(tmp_path, spec):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "val.tar")
    path = spec.format(tmp_path / "a" / "val.tar").replace("val.tar/..", "")
    for labels in (True, False):
        with pytest.raises(DataError):
            open_dataset(path, labels=labels)
