"""Pictures of one's own: in folders, with class lists, in parquet files; and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_trees import jpeg

from tomebench.datasets.classes import ClassHead, ClassNames
from tomebench.datasets.images import open_dataset
from tomebench.errors import DataError


def parquet(folder, classes, rows, split="validation"):
    """Write rows (file name or None, bytes, label) with named classes."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    images = [{"path": name, "bytes": data} for name, data, _ in rows]
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict({"image": images, "label": [label for *_, label in rows]}, features=features)
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


ANIMALS = ("cat", "dog", "newt")


def listed(*names: str, source: str = "classes.txt") -> ClassNames:
    return ClassNames(names, source)


def pictures(root: Path, names=ANIMALS, each: int = 2) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for image in range(each):
            (root / name / f"{image}.jpg").write_bytes(jpeg(10 * number + image))
    return root


def refusal(spec, head: ClassHead | None, **options) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(spec), head=head, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
