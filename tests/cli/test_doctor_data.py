"""The doctor says all that is wrong with a data set at once, and what to do about each."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

TENCH, GOLDFISH = "n01440764", "n01443537"


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((24, 16)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    for number, wnid in enumerate((TENCH, TENCH, GOLDFISH)):
        (tmp_path / "set" / wnid).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / wnid / f"{number}.JPEG").write_bytes(jpeg(number))
    return tmp_path / "set"


@pytest.fixture
def look(program, root):
    """Findings about the data set, by name, and the exit code."""

    def call(*flags):
        result = program("doctor", "--data", str(root), "--json", *flags)
        assert result.err == ""
        found = json.loads(result.out)["findings"]
        return {f["what"]: (f["state"], f["text"]) for f in found}, result.code

    return call


def test_a_good_set(look):
    found, code = look()
    assert code == 0
    assert found["data"] == ("ok", "set; partial: 2 of 1000 classes, 3 images")
    assert found["classes"] == (
        "warn",
        "2 of 1000; missing n01484850, n01491361, n01494475, n01496331, n01498041, ...: add them, or the result is "
        "of a part only",
    )
    assert found["images"] == (
        "warn",
        "3, 1 to 2 per class; the whole set has 50000, 50 per class: fetch what is missing, or the result differs",
    )
    assert found["unreadable"] == ("ok", "none (first and last bytes looked at; --decode decodes every image)")
    assert found["sizes"][1].startswith("24 to 24 x 16 to 16 pixels, about 0.0 MB in all (from 3 images)")
    assert "extra" not in found


def test_everything_that_is_wrong_at_once(look, root):
    (root / TENCH / "0.JPEG").write_bytes(b"")
    (root / TENCH / "notes.txt").touch()
    (root / "n99999999").mkdir()
    found, code = look()
    assert code == 2
    assert found["data"] == ("fail", f"{root}: 1 folder (n99999999) is not ImageNet-1k class ids; move them out")
    assert found["extra"] == ("warn", f"2 not used: n99999999/, {TENCH}/notes.txt; move out what is not meant")
    assert found["unreadable"] == (
        "fail",
        f"1 of 3: {TENCH}/0.JPEG (empty file); replace them, or leave them out with --allow-missing 1",
    )
    assert found["sizes"][1].endswith("(from 2 images)")


def test_decode_finds_damage_inside(look, root):
    path = root / GOLDFISH / "2.JPEG"
    data = path.read_bytes()
    path.write_bytes(data[:20] + b"\0" * (len(data) - 40) + data[-20:])
    assert look()[1] == 0
    found, code = look("--decode")
    assert code == 2
    assert found["unreadable"][1].startswith(f"1 of 3: {GOLDFISH}/2.JPEG (")


def test_a_manifest_is_written_and_verified(look, root, tmp_path):
    found, code = look("--manifest", "sums")
    assert (code, found["manifest"]) == (0, ("ok", "checksums of 3 images written to sums"))
    assert len((tmp_path / "sums").read_text().splitlines()) == 3
    found, code = look("--verify", "sums")
    assert (code, found["checksums"]) == (0, ("ok", "all 3 images are as the manifest says"))
    (root / TENCH / "0.JPEG").write_bytes(jpeg(7))
    (root / TENCH / "1.JPEG").rename(root / TENCH / "8.JPEG")
    found, code = look("--verify", "sums")
    assert code == 2
    assert found["changed"] == ("fail", f"1: {TENCH}/0.JPEG; fetch them again")
    assert found["missing"] == ("fail", f"1: {TENCH}/1.JPEG; fetch them")
    assert found["not listed"] == ("fail", f"1: {TENCH}/8.JPEG; move them out")
    assert look("--verify", "gone")[0]["checksums"][0] == "fail"
    found, code = look("--manifest", "sums/sums")
    assert (code, found["manifest"]) == (
        2,
        ("fail", "--manifest sums/sums: File exists; give a file that can be written"),
    )


def test_sets_that_cannot_be_listed(program, root):
    for path in root.glob("*/*"):
        path.rename(root / path.name)
    for wnid in (TENCH, GOLDFISH):
        (root / wnid).rmdir()
    result = program("doctor", "--data", str(root))
    assert result.code == 2
    assert "3 images in one flat folder have no labels" in " ".join(result.out.split())
    assert "unreadable" not in result.out


def test_flags_that_need_images(program):
    result = program("doctor", "--decode")
    assert result.code == 2
    assert "are about images; add --data" in " ".join(result.out.split())


def test_real_labels(look, root, tmp_path):
    for number, path in enumerate(sorted(root.glob("*/*")), start=1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    labels = tmp_path / "real.json"
    labels.write_text(json.dumps([[0, 5], [], *[[1]] * 49_998]))
    found, code = look("--real", str(labels))
    assert code == 0
    assert found["real"] == ("ok", "labels for 2 of 3 images, up to 2 for one")
    labels.write_text("[]")
    found, code = look("--real", str(labels))
    assert code == 2
    assert found["real"][0] == "fail"
    assert "is not a list of 50000 lists of class numbers 0 to 999; give the file real.json of ReaL" in found["real"][1]
