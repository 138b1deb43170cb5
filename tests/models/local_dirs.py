"""Folders of models as ``local-dir:`` takes them."""

from __future__ import annotations

import json

from safetensors.torch import save_file

CLASSES = 7


def local_dir(folder, state, **config):
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    settings = {"architecture": "test_vit", "num_classes": CLASSES, "pretrained_cfg": {"input_size": [3, 160, 160]}}
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return f"local-dir:{folder}"
