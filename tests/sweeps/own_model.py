"""A fine-tuned model of 37 classes and its pictures in folders of any names, made from a real model and real images."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo, create_dataset, create_transform, resolve_model_data_config

from tomebench.datasets.classes import class_numbers

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
CHECKPOINT = REALDATA / "deit_tiny_patch16_224.safetensors"
MODEL = "deit_tiny_patch16_224"
CLASSES = 37


@dataclass(frozen=True)
class OwnModel:
    """The model's weights and the folders of its pictures, class names in the order of its head."""

    state: dict[str, torch.Tensor]
    names: tuple[str, ...]
    images: Path

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.state, path)
        return path

    def timm_count(self) -> tuple[int, int]:
        """Right answers and images, all of it by timm's own code."""
        model = timm.create_model(MODEL, num_classes=len(self.names)).eval()
        model.load_state_dict(self.state)
        config = resolve_model_data_config(model)
        dataset = create_dataset("", root=str(self.images), transform=create_transform(**config))
        assert list(dataset.reader.class_to_idx) == list(self.names)
        right = 0
        with torch.inference_mode():
            for image, label in dataset:
                right += int(model(image[None]).argmax() == label)
        return right, len(dataset)


def make_own_model(folder: Path, classes: int = CLASSES) -> OwnModel:
    """Cut the head to the classes with the most pictures, sorted by name; copy their pictures into named folders."""
    found: dict[str, list[Path]] = {}
    for part in ("imagenet-val-300", "imagenet-sample-100"):
        for path in sorted((REALDATA / part).rglob("*.*")):
            if path.parent.name in class_numbers():
                found.setdefault(path.parent.name, []).append(path)
    chosen = sorted(found, key=lambda wnid: (-len(found[wnid]), wnid))[:classes]
    info = ImageNetInfo()
    titles = {
        re.sub(r"\W+", "_", info.index_to_description(class_numbers()[wnid]).partition(",")[0]).lower(): wnid
        for wnid in chosen
    }
    names = tuple(sorted(titles))
    assert len(names) == classes
    images = folder / "pictures"
    for name in names:
        (images / name).mkdir(parents=True)
        for path in found[titles[name]]:
            shutil.copy(path, images / name / f"{path.parent.parent.name}-{path.name}")
    state = load_file(CHECKPOINT)
    rows = [class_numbers()[titles[name]] for name in names]
    state["head.weight"], state["head.bias"] = state["head.weight"][rows].clone(), state["head.bias"][rows].clone()
    return OwnModel(state, names, images)


def write_shards(own: OwnModel, folder: Path, names: Sequence[str] | None = None) -> Path:
    """The pictures as WebDataset shards, labelled by number, with their list of names if one is given."""
    folder.mkdir()
    order = list(names or own.names)
    with tarfile.open(folder / "val-0.tar", "w") as tar:
        for path in sorted(own.images.rglob("*.*")):
            parts = {
                path.suffix.lstrip(".").lower(): path.read_bytes(),
                "cls": str(order.index(path.parent.name)).encode(),
            }
            for field, content in parts.items():
                member = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.{field}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    if names is not None:
        (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


def write_local_dir(own: OwnModel, folder: Path, *, label_names: bool = True) -> Path:
    """The model as timm saves one for ``local-dir:``."""
    own.save(folder / "model.safetensors")
    model = timm.create_model(MODEL, num_classes=len(own.names))
    keys = ("input_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier", "fixed_input_size")
    config = {
        "architecture": MODEL,
        "num_classes": len(own.names),
        "pretrained_cfg": {**{key: model.pretrained_cfg[key] for key in keys}, "num_classes": len(own.names)},
    }
    if label_names:
        config["label_names"] = list(own.names)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
