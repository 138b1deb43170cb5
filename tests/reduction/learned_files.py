"""Files of predictors with random weights, for tests of trained methods."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from tomebench.reduction.learned import ABOUT
from tomebench.reduction.predictors import Predictors
from tomebench.schema import canonical_json


def random_predictors(blocks: Sequence[int], width: int, seed: int = 0) -> Predictors:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Predictors(blocks, width).requires_grad_(False).eval()


def write_predictors(path: Path, made: Predictors, **about: object) -> Path:
    said = {"blocks": ",".join(map(str, made.blocks)), "width": made.width, "keep": 0.7, **about}
    save_file(made.state_dict(), path, metadata={ABOUT: canonical_json(said)})
    return path


@functools.cache
def predictors_file(width: int, depth: int) -> Path:
    """Random predictors before every block but the first."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_predictors(Path(folder) / "predictors.safetensors", random_predictors(range(1, depth), width))
