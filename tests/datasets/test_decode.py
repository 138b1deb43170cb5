"""Images of every kind decode to RGB by content; damaged ones give one line that names the file and the reason."""

import contextlib
import io
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from tomebench.datasets import decode
from tomebench.datasets.decode import decode_rgb, printable, problem
from tomebench.errors import DataError


def picture(width=24, height=16, seed=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def save(path, data):
    path.write_bytes(data)
    return str(path)


def assert_refused(path, reason):
    """Both looks at a file, the cheap and the full one, give this reason."""
    found = problem(path)
    assert found is not None
    assert reason in found
    with pytest.raises(DataError) as caught:
        decode_rgb(path)
    assert reason in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_assert_refused_can_fail(tmp_path):
    good = save(tmp_path / "a.JPEG", encoded(picture()))
    with pytest.raises(AssertionError):
        assert_refused(good, "empty file")
    empty = save(tmp_path / "b.JPEG", b"")
    with pytest.raises(AssertionError):
        assert_refused(empty, "no permission")


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpeg_modes_become_rgb(tmp_path, mode):
    path = save(tmp_path / "a.JPEG", encoded(picture().convert(mode)))
    assert problem(path) is None
    image = decode_rgb(path)
    assert (image.mode, image.size) == ("RGB", (24, 16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_named_jpeg_is_read_by_content(tmp_path, mode):
    original = picture().convert("RGB" if mode in "LA RGBA" else mode).convert(mode)
    path = save(tmp_path / "a.JPEG", encoded(original, "PNG"))
    assert problem(path) is None
    assert np.array_equal(decode_rgb(path), original.convert("RGB"))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_gray_of_sixteen_bits_is_scaled_to_eight(tmp_path, form):
    ramp = np.linspace(0, 65535, 24 * 16).reshape(16, 24).astype(np.uint16)
    path = save(tmp_path / "a.JPEG", encoded(Image.fromarray(ramp), form))
    assert np.array_equal(np.asarray(decode_rgb(path))[..., 0], ramp >> 8)
    colours = np.asarray(decode_rgb(path))
    assert np.array_equal(colours[..., 0], colours[..., 2])


def test_gray_of_a_known_white_is_scaled(tmp_path):
    path = save(tmp_path / "a.pgm", b"P5 2 1 65535\n\x00\x00\xff\xff")
    assert np.asarray(decode_rgb(path))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("kind", "samples", "what"),
    [
        (np.float32, 3, "floating point"),
        (np.int32, 1, "integers of 32 bits"),
        (np.int32, 2, "signed integers"),
        (np.uint16, 2, "signed integers"),
        (np.uint8, 2, "signed integers"),  # which Pillow takes for unsigned ones: the negative are the brightest
    ],
)
def test_pixels_that_do_not_say_what_white_is_are_refused(tmp_path, kind, samples, what):
    data = encoded(Image.fromarray(np.ones((16, 24), kind)), "TIFF", tiffinfo={339: samples})
    says = [struct.pack("<HHIH", 339, 3, 1, written) for written in (1, 2, 3)]
    assert sum(map(data.count, says)) == 1
    for each in says:  # Pillow writes its own number of some kinds
        data = data.replace(each, says[samples - 1])
    path = save(tmp_path / "a.JPEG", data)
    assert_refused(path, f"its pixels are {what}, of which nobody knows what is white; save 8 bits")


def test_names_end_as_those_of_all_formats_that_are_decoded():
    Image.init()
    known = {suffix for suffix, form in Image.registered_extensions().items() if form in decode.FORMATS}
    assert sorted(f".{suffix}" for suffixes in decode.FORMATS.values() for suffix in suffixes) == sorted(
        known - {".pfm"}  # floating point, as depth maps beside images are: no image
    )


@pytest.mark.parametrize("form", ["EPS", "PCX", "TGA", "DDS"])
def test_what_no_data_set_is_made_of_is_no_image(tmp_path, form):
    """Whatever else this Pillow reads: for PostScript it starts a program that runs what the file says."""
    path = save(tmp_path / "a.JPEG", encoded(picture(), form))
    with Image.open(path) as image:
        assert image.format == form
    assert_refused(path, "not an image")


@pytest.mark.parametrize("form", decode.FORMATS)
def test_named_formats_are_read_by_content(tmp_path, form):
    Image.init()
    if form not in Image.SAVE:
        pytest.skip("this Pillow has it not")
    assert decode_rgb(save(tmp_path / "a.JPEG", encoded(picture(), form))).size == (24, 16)


def test_a_damaged_tiff_is_one_line(tmp_path, capfd):
    """Pillow logs what it cannot decode, which without a handler goes to stderr."""
    data = bytearray(encoded(picture(), "TIFF"))
    entry = data.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    data[entry + 8 : entry + 10] = struct.pack("<H", 2048)
    assert_refused(save(tmp_path / "a.JPEG", bytes(data)), "")
    assert capfd.readouterr().err == ""


def test_palette_with_transparent_colours_does_not_warn(tmp_path):
    path = save(tmp_path / "a.png", encoded(picture().quantize(16), "PNG", transparency=bytes(range(16))))
    assert decode_rgb(path).mode == "RGB"


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    plain, turned = (encoded(picture(), exif=e) for e in (Image.Exif(), exif))
    assert plain != turned
    first, second = (decode_rgb(save(tmp_path / f"{n}.JPEG", d)) for n, d in enumerate((plain, turned)))
    assert np.array_equal(first, second)


def test_one_pixel(tmp_path):
    assert decode_rgb(save(tmp_path / "a.JPEG", encoded(picture(1, 1)))).size == (1, 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated(tmp_path, form, tenths):
    data = encoded(picture(64, 64), form)
    path = save(tmp_path / "a.JPEG", data[: len(data) * tenths // 10])
    assert_refused(path, "")


def test_reasons(tmp_path, monkeypatch):
    assert_refused(save(tmp_path / "a.JPEG", b""), "empty file")
    assert_refused(save(tmp_path / "b.JPEG", b"<!DOCTYPE html><html>not found</html>"), "not an image")
    assert_refused(save(tmp_path / "c.JPEG", b"\xff\xd8\xff"), "not an image")
    (tmp_path / "d.JPEG").symlink_to(tmp_path / "gone")
    assert_refused(str(tmp_path / "d.JPEG"), "no such file")
    os.mkfifo(tmp_path / "p.JPEG")  # which nobody ever writes to
    assert_refused(str(tmp_path / "p.JPEG"), "not a regular file")
    bmp = save(tmp_path / "e.bmp", encoded(picture(), "BMP"))  # neither JPEG nor PNG: decoded by both looks
    assert problem(bmp) is None
    monkeypatch.setattr(decode, "_MOST_PIXELS", 100)
    assert_refused(bmp, "more than 100 pixels")  # 384 pixels: an error of PIL
    monkeypatch.setattr(decode, "_MOST_PIXELS", 200)
    assert_refused(bmp, "more than 200 pixels")  # ... and a mere warning


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.JPEG", encoded(picture()))
    monkeypatch.setattr(os, "open", refuse)  # not chmod, which does not stop root
    monkeypatch.setattr(Image, "open", refuse)
    assert_refused(path, "no permission")


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.Generator(np.random.PCG64(1))
    for form in ("JPEG", "PNG"):
        data = encoded(picture(), form)
        for _ in range(150):
            broken = bytearray(data)
            for position in rng.integers(2, len(data), 3):
                broken[position] ^= int(rng.integers(1, 256))
            path = save(tmp_path / "a.JPEG", broken)
            with contextlib.suppress(DataError):
                assert decode_rgb(path).mode == "RGB"
            problem(path)


def test_printable():
    assert printable("runs/[r=8]/ü x.JPEG") == "runs/[r=8]/ü x.JPEG"
    assert printable("a\nb\x1b[31m\t") == r"a\nb\x1b[31m\t"
    assert printable(os.fsdecode(b"caf\xe9.JPEG")) == r"caf\udce9.JPEG"


def test_threads_share_the_handling_of_warnings(tmp_path, monkeypatch):
    odd = save(tmp_path / "a.png", encoded(picture().quantize(16), "PNG", transparency=bytes(range(16))))
    bomb = save(tmp_path / "b.png", encoded(picture(40, 40), "PNG"))
    monkeypatch.setattr(decode, "_MOST_PIXELS", 1000)  # 1600 pixels warn, and only that
    before = list(warnings.filters)

    def look(path):
        try:
            return decode_rgb(path).size
        except DataError as error:
            return "bomb" if "decompression bomb" in str(error) else str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(look, [odd, bomb] * 200))
    assert found == [(24, 16), "bomb"] * 200
    assert warnings.filters == before


def test_a_thin_image_is_refused_before_it_is_resized(tmp_path):
    """Of 65 000 pixels in a row a resize to 256 in height makes four milliards."""
    for size, fits in (((300, 1), True), ((1, 301), False), ((65_000, 1), False)):
        path = tmp_path / "thin.png"
        Image.new("RGB", size).save(path)
        if fits:
            assert decode_rgb(str(path)).size == size
        else:
            with pytest.raises(DataError, match=rf"thin\.png: {size[0]} x {size[1]} pixels, too thin"):
                decode_rgb(str(path))


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(DataError, match="larger than 1024 MiB"):
        decode_rgb(str(tmp_path / "huge.jpg"))


def test_what_a_caller_allows_pillow_changes_no_image(tmp_path, monkeypatch):
    """Training scripts let it take half a file for an image, and any number of pixels."""
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match="truncated"):
        decode_rgb(str(path))
    assert problem(str(path)) is not None
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="decompression bomb"):
        decode_rgb(str(tmp_path / "bomb.png"))
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, None)


def test_gray_where_white_is_zero_is_what_it_is_in_eight_bits(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "8.tif", tiffinfo={262: 0})  # which Pillow turns round
    Image.fromarray(65_535 - ramp * 257).save(tmp_path / "16.tif", tiffinfo={262: 0})  # and this it does not
    for name in ("8", "16"):
        assert struct.pack("<HHIH", 262, 3, 1, 0) in (tmp_path / f"{name}.tif").read_bytes()
        assert np.array_equal(np.asarray(decode_rgb(str(tmp_path / f"{name}.tif")))[..., 0], ramp)
