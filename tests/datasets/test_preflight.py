"""Listing and looking at a whole validation set takes no time worth mentioning."""

import os
import time

import pytest
from image_trees import file_name, jpeg

from tomebench.datasets.checks import check_images
from tomebench.datasets.imagenet import wnids
from tomebench.datasets.images import open_dataset


@pytest.fixture
def whole_set(tmp_path):
    """50 000 names in 1000 folders for a few files: what costs is their number."""
    originals = [tmp_path / str(number) for number in range(2)]
    for number, path in enumerate(originals):
        path.write_bytes(jpeg(number))
    root = tmp_path / "val"
    root.mkdir()
    try:
        for number, wnid in enumerate(wnids()):
            (root / wnid).mkdir()
            for image in range(50):
                os.link(originals[image % 2], f"{root}/{wnid}/{file_name(50 * number + image + 1)}")
    except OSError as error:
        pytest.skip(f"no room for so many links: {error.strerror}")
    return root


@pytest.mark.bench
def test_preflight_of_50_000_files(whole_set):
    open_dataset(str(whole_set))  # the names are in memory from here on
    started = time.perf_counter()
    image_set = check_images(open_dataset(str(whole_set)))
    seconds = time.perf_counter() - started
    print(f"preflight of {len(image_set)} files: {seconds:.2f} s")
    assert len(image_set) == 50_000
    assert image_set.info.note is None
    assert seconds < 2  # 2 s on a machine that does nothing else
