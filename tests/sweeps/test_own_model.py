"""A fine-tuned model on its own pictures is right exactly as often as timm's own evaluation says, in every form.

Needs ``../shared/realdata`` beside the checkout.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from own_model import CHECKPOINT, MODEL, REALDATA, OwnModel, make_own_model, write_local_dir, write_shards

from tomebench.errors import InputError
from tomebench.runs.row import Row
from tomebench.runs.store import Store
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.run import run_sweep

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning"),  # timm's own reader leaves images open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(not CHECKPOINT.exists(), reason="needs ../shared/realdata beside the checkout"),
]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> OwnModel:
    return make_own_model(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def timm_says(own) -> tuple[int, int]:
    return own.timm_count()


def sweep(run: Path, r: str = "0", **settings: object) -> tuple[Row, ...]:
    common = {"model": MODEL, "device": "cpu", "batch_size": 25, "budget": "none", "r": r}
    *_, finished = run_sweep(load_config([], {**common, **settings}), run, should_stop=lambda: False)
    assert isinstance(finished, Finished)
    return finished.rows


def right(rows: tuple[Row, ...]) -> tuple[int | None, int | None]:
    return rows[0].top1_correct, rows[0].n_seen


@pytest.mark.parametrize("form", ["safetensors", "pth.tar", "ckpt", "ema", "local-dir"])
def test_weights_in_every_form(own, timm_says, tmp_path, form):
    path, settings = tmp_path / "w" / f"mine.{form}", {}
    path.parent.mkdir()
    settings["checkpoint"] = path
    if form == "safetensors":
        own.save(path)
    elif form == "pth.tar":
        torch.save({"epoch": 3, "arch": MODEL, "state_dict": own.state}, path)
    elif form == "ckpt":
        named = {f"model.{name}": tensor for name, tensor in own.state.items()}
        torch.save({"state_dict": named, "hyper_parameters": {"lr": 0.1}, "epoch": 3}, path)
    elif form == "ema":
        untrained = {name: torch.zeros_like(tensor) for name, tensor in own.state.items()}
        torch.save({"state_dict": untrained, "state_dict_ema": own.state}, path)
        settings["use_ema"] = True
    else:
        settings = {"model": f"local-dir:{write_local_dir(own, tmp_path / 'saved')}"}
    rows = sweep(tmp_path / "run", data=str(own.images), **settings)
    assert right(rows) == timm_says
    assert rows[0].warnings == ()


@pytest.mark.parametrize("form", ["wds", "wds with a list", "hfds"])
def test_pictures_in_every_form(own, timm_says, tmp_path, form, monkeypatch):
    checkpoint = own.save(tmp_path / "w" / "mine.safetensors")
    (checkpoint.parent / "classes.txt").write_text("\n".join(own.names))
    if form == "hfds":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        paths = sorted(own.images.rglob("*.*"))
        order = list(reversed(own.names))  # the data set's own, which only the names translate
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=order)})
        rows = [{"path": path.name, "bytes": path.read_bytes()} for path in paths]
        labels = [order.index(path.parent.name) for path in paths]
        table = datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)
        (tmp_path / "rows").mkdir()
        table.to_parquet(tmp_path / "rows" / "validation-00000-of-00001.parquet")
        data = f"hfds/{tmp_path / 'rows'}"
    else:
        names = list(reversed(own.names)) if form != "wds" else None
        data = f"wds/{write_shards(own, tmp_path / 'shards', names)}"
    assert right(sweep(tmp_path / "run", data=data, checkpoint=checkpoint)) == timm_says


def test_a_shuffled_order_is_noticed(own, tmp_path):
    shuffled = [*own.names[:2], *own.names[3:], own.names[2]]  # two classes are where they were
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "classes.txt").write_text("\n".join(shuffled))
    rows = sweep(tmp_path / "run", data=str(own.images), checkpoint=own.save(tmp_path / "w" / "mine.safetensors"))
    assert "CHANCE_LEVEL" in rows[0].warnings


def refused(**settings: object) -> str:
    config = load_config(
        [], {"model": MODEL, "device": "cpu", "batch_size": 25, "budget": "none", "r": "0", **settings}
    )
    with pytest.raises(InputError) as caught:
        list(run_sweep(config, Path("never"), should_stop=lambda: False))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_can_fail(own, tmp_path):
    with pytest.raises(AssertionError, match="no classifier"):
        assert "no classifier" in refused(data=str(own.images), checkpoint=tmp_path / "absent.pth")


def test_what_does_not_fit_is_one_line(own, tmp_path):
    checkpoint, data = own.save(tmp_path / "w" / "mine.safetensors"), str(own.images)
    seen = f"{data} has 37 classes ({', '.join(own.names[:5])}, ...)"
    assert refused(data=data) == (
        f"{seen}, the model has 1000 classes, and no list of class names was found; pass the model's own list with "
        "--class-names FILE (a name in each line, in the order of its outputs), or weights that were trained on these "
        "classes with --checkpoint"
    )
    assert refused(data=data, checkpoint=checkpoint, num_classes=10).endswith(
        "its head has 37 classes, --num-classes says 10; leave --num-classes out"
    )
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*own.names[:-1], "unicorn"]))
    assert refused(data=data, checkpoint=checkpoint, class_names=names) == (
        f"{seen}, of which {own.names[-1]} is not in {names} (37 names: {', '.join(own.names[:5])}, ...); rename or "
        "move them out, or pass the list that has them with --class-names"
    )
    names.write_text("\n".join(own.names[:-1]))
    assert refused(data=data, checkpoint=checkpoint, class_names=names) == (
        f"{names} (36 names: {', '.join(own.names[:5])}, ...) does not fit the model, which has 37 classes; give a "
        "list of 37 names"
    )
    (checkpoint.parent / "classes.txt").write_text("\n".join(own.names))
    swapped = [own.names[1], own.names[0], *own.names[2:]]
    (checkpoint.parent / "class_to_idx.json").write_text(json.dumps({name: k for k, name in enumerate(swapped)}))
    assert refused(data=data, checkpoint=checkpoint) == (
        f"two lists of class names disagree: class 0 is {own.names[0]!r} in classes.txt beside the checkpoint and "
        f"{own.names[1]!r} in class_to_idx.json beside the checkpoint; pass the right one with --class-names"
    )


def test_an_empty_class_is_one_line(tmp_path):
    own = make_own_model(tmp_path / "own", classes=3)
    for path in (own.images / own.names[1]).iterdir():
        path.unlink()
    assert refused(data=str(own.images), checkpoint=own.save(tmp_path / "w" / "mine.safetensors")) == (
        f"{own.images}: class 1 folder ({own.names[1]}) is empty, which in some tools shifts the classes after it; put "
        "its images there, or pass the model's list with --class-names"
    )


def test_agreement_without_labels_is_what_the_stored_predictions_give(tmp_path):
    for name, labels in (("with", True), ("without", False)):
        rows = sweep(
            tmp_path / name,
            r="0,8,16",
            data=str(REALDATA / "imagenet-val-300"),
            checkpoint=CHECKPOINT,
            labels=labels,
        )
    with Store.read(tmp_path / "with") as store:
        predictions = [store.predictions()[cell.key].top1 for cell, _ in store.cells()]
    for row, top1 in zip(rows, predictions, strict=True):
        assert row.agreed == int((top1 == predictions[0]).sum())
        assert row.agreement == pytest.approx(100 * row.agreed / 300)
        assert row.top1 is None
    assert np.array([row.agreement for row in rows]).min() < 100
    assert rows[0].dataset == "imagenet-val-300 (300 images without labels)"
