"""What one pass over real images saves: one sweep of 13 values of r against 13 sweeps, and what a cache saves.

Needs ``../shared/realdata`` beside the checkout. ``pytest -s -m realdata tests/sweeps/test_one_pass.py`` prints the
figures.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tomebench.report.frames import read_csv

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
CHECKPOINT = REALDATA / "deit_tiny_patch16_224.safetensors"
R = range(0, 25, 2)

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {REALDATA.name} beside the checkout"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 400 real images in one tree of class folders; links, no copies."""
    root = tmp_path_factory.mktemp("images")
    for part in ("imagenet-val-300", "imagenet-sample-100"):
        for path in sorted((REALDATA / part).glob("*/*")):
            (root / path.parent.name).mkdir(exist_ok=True)
            (root / path.parent.name / f"{part}-{path.name}").symlink_to(path)
    assert len(list(root.glob("*/*"))) == 400
    return root


def sweep(images: Path, out: Path, r: str, *flags: str) -> float:
    """Seconds that the command takes."""
    command = f"-m tomebench sweep --model deit_tiny_patch16_224 --checkpoint {CHECKPOINT} --data {images} --r {r} \
        --device cpu --batch-size 20 --budget none --quiet --out {out}".split()
    began = time.monotonic()
    subprocess.run([sys.executable, *command, *flags], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def test_one_sweep_against_one_for_each_r(images: Path, tmp_path: Path) -> None:
    before = sweep(images, tmp_path / "all", "0..24:2")
    single = sum(sweep(images, tmp_path / str(r), str(r)) for r in R)
    after = sweep(images, tmp_path / "again", "0..24:2")  # on both sides, so that a trend of the machine shows
    print(
        f"\n13 sweeps of one r: {single:.0f} s; one sweep of all 13: {before:.0f} s before and {after:.0f} s after; "
        f"{single / before:.2f}x and {single / after:.2f}x"
    )
    whole = read_csv(tmp_path / "all" / "table.csv").set_index("r")["top1_correct"]
    for r in R:
        assert read_csv(tmp_path / str(r) / "table.csv").set_index("r")["top1_correct"][r] == whole[r]
    assert single / max(before, after) >= 1.5


def test_a_second_pass_from_the_cache_hardly_waits_for_images(images: Path, tmp_path: Path) -> None:
    shares, correct = [], []
    for turn in range(2):
        out = tmp_path / str(turn)
        sweep(images, out, "0..24:2", "--cache", str(tmp_path / "cache"))
        table = read_csv(out / "table.csv")
        shares.append(table["input_share"][0])
        correct.append(table["top1_correct"].tolist())
    print(f"\npart of the pass spent waiting for images: {shares[0]:.1f} % first, {shares[1]:.2f} % from the cache")
    assert correct[0] == correct[1]
    assert shares[1] < 10
    assert shares[1] < shares[0]
