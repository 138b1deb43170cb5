"""The same few validation images, written down in every layout that the readers know."""

from __future__ import annotations

import io
import tarfile

import numpy as np
from PIL import Image

from tomebench.datasets.imagenet import wnids

TENCH, GOLDFISH, LAST = "n01440764", "n01443537", "n15075141"
SETS = {  # file number of each image, by class
    GOLDFISH: (7, 30_001),
    LAST: (2, 9, 50_000),
    TENCH: (1,),
}


def file_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def jpeg(number, size=(24, 16)):
    """Bytes of a JPEG that its number alone decides."""
    rng = np.random.Generator(np.random.PCG64(number))
    pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def members(prefix=""):
    """Name in class folders to bytes, in no particular order."""
    return {f"{prefix}{wnid}/{file_name(n)}": jpeg(n) for wnid, numbers in SETS.items() for n in numbers}


def class_folders(root, prefix=""):
    for name, data in members(prefix).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def flat_tar(path):
    """Numbered images only, as in the original tar."""
    return write_tar(path, {file_name(n): jpeg(n) for numbers in SETS.values() for n in numbers})


def true_wnids():
    """A class id for each of 50 000 file numbers, which for the images above is the true one."""
    found = [wnids()[number % 1000] for number in range(50_000)]
    for wnid, numbers in SETS.items():
        for number in numbers:
            found[number - 1] = wnid
    return found


def pixels(image_set):
    return [np.asarray(image_set.open(index)) for index in range(len(image_set))]
