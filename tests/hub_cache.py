"""A cache of the Hugging Face hub as its own library lays it out, with one repository in it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

NAME = "hf-hub:org/name"
SHA = "0123456789abcdef0123456789abcdef01234567"


def write_hub_cache(cache: Path, state: dict[str, Tensor], label_names: list[str]) -> Path:
    """Put a test_vit into a cache, as timm saves it; gives the folder of its only revision."""
    repository = cache / "models--org--name"
    folder = repository / "snapshots" / SHA
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SHA)
    config = {
        "input_size": [3, 160, 160], "fixed_input_size": True, "label_names": label_names,
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "crop_pct": 1.0,
    }  # fmt: skip
    settings = {"architecture": "test_vit", "num_classes": len(label_names), "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(state, folder / "model.safetensors")
    return folder
