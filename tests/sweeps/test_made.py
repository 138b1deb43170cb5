"""Rows of a run are made of one code, one set of weights and one set of images, whatever lies under their names."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from noisy_images import write_data
from PIL import Image
from runs.store_samples import CELLS, fill, make_chunks, make_images

from tomebench import identity
from tomebench.errors import Interrupted, RunError
from tomebench.identity import code_digest, difference
from tomebench.models.create import LoadedModel, load_model
from tomebench.runs.origin import MADE, Origin
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.schema import ImageState
from tomebench.sweeps import accuracy, made
from tomebench.sweeps.config import SweepConfig, run_directory
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.resume import choose_folder
from tomebench.sweeps.run import run_sweep

IMAGES, BATCH = 12, 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data(tmp_path, (i % 3 for i in range(IMAGES)))
    return tmp_path


def config(root: Path, **settings: object) -> SweepConfig:
    given = {
        "model": "test_vit", "r": "0,4", "device": "cpu", "batch_size": BATCH, "workers": 0, "img_size": 64,
        "threads": 1, "budget": "none", "checkpoint": root / "weights.safetensors", "data": str(root / "images"),
    }  # fmt: skip
    return load_config([], {**given, **settings})


def sweep(
    root: Path, batches: int = 3, given: LoadedModel | None = None, **settings: object
) -> list[tuple[object, ...]]:
    """What a sweep into ``root/run`` counts, stopped after so many batches."""
    stop = stopping(root / "run", batches)
    try:
        *_, last = run_sweep(config(root, **settings), root / "run", stop, given)
    except Interrupted:
        return []
    assert isinstance(last, Finished)
    return [(row.r, row.n_seen, row.top1_correct, row.agreed) for row in last.rows]


def stopping(folder: Path, batches: int) -> Callable[[], bool]:
    def stop() -> bool:
        if batches >= IMAGES // BATCH or not (folder / "run.sqlite").exists():
            return False
        with Store.read(folder) as store:
            return len(store.done_chunks()) >= batches

    return stop


def seen(root: Path) -> int:
    with Store.read(root / "run") as store:
        return len(store.seen())


def images(root: Path) -> list[Path]:
    return sorted((root / "images").rglob("*.JPEG"))


def repaint(path: Path) -> None:
    """Another image of the same name, size and time of change."""
    state, size = path.stat(), path.stat().st_size
    other = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 90)).save(other, "JPEG", quality=30)
    start, rest = other.getvalue()[:2], other.getvalue()[2:]
    filler = size - len(start) - len(rest)  # a comment, which no decoder looks at
    path.write_bytes(start + b"\xff\xfe" + (filler - 2).to_bytes(2, "big") + bytes(filler - 4) + rest)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, state.st_mtime_ns)


def test_images_that_were_replaced_between_two_sessions_are_named(root: Path) -> None:
    sweep(root, batches=1)
    repaint(images(root)[2])
    with pytest.raises(RunError, match=rf"image 'n01440764/{images(root)[2].name}' has changed since this run"):
        sweep(root)
    assert seen(root) == BATCH
    with pytest.raises(RunError, match="has changed"):  # another r goes over the same images
        sweep(root, r="0,2,4")
    with Store.read(root / "run") as store:
        assert len(build_rows(store)) == 2


def test_an_image_that_is_replaced_under_a_later_pass_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(root)
    monkeypatch.setattr(made, "unlike_here", lambda *_: None)  # it was still the same when the session began
    repaint(images(root)[5])
    with pytest.raises(RunError, match=f"{images(root)[5].name}' has changed"):
        sweep(root, r="0,2,4")


def test_a_data_folder_may_be_copied_and_its_files_touched(root: Path) -> None:
    sweep(root, batches=1)
    shutil.copytree(root / "images", root / "copy")
    shutil.rmtree(root / "images")
    (root / "copy").rename(root / "images")
    for path in images(root):
        path.touch()
    whole = sweep(root)
    shutil.rmtree(root / "run")
    assert whole == sweep(root)


def test_files_that_are_the_same_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(root, batches=1)
    read: list[str] = []
    from tomebench.datasets import files

    monkeypatch.setattr(files, "read_bytes", lambda path, *_: read.append(path) or b"")
    with Store.read(root / "run") as store:
        made.check_unchanged(store, accuracy_images(root), BATCH, lambda: None)
    assert not read
    images(root)[1].touch()
    with Store.read(root / "run") as store, pytest.raises(RunError):
        made.check_unchanged(store, accuracy_images(root), BATCH, lambda: None)
    assert len(read) == 1


def accuracy_images(root: Path) -> accuracy.ImageSet:
    from tomebench.datasets.images import open_dataset

    return open_dataset(str(root / "images"))


def test_other_weights_under_the_same_name_are_refused(root: Path) -> None:
    first = load_model(config(root).model_spec)
    sweep(root, batches=1, given=first)
    moved = load_model(config(root).model_spec)
    with torch.no_grad():
        moved.model.state_dict()["blocks.0.mlp.fc1.bias"][3] += 1e-3
    with pytest.raises(RunError, match=r"measured with another weights \(weights [0-9a-f]{16} -> [0-9a-f]{16}\)"):
        sweep(root, given=replace(moved, weights=first.weights))
    assert sweep(root, given=first)


def test_other_layers_under_the_same_tensors_are_refused(root: Path) -> None:
    """No tensor says how many heads a model has, or what its answer is taken from."""
    first = load_model(config(root).model_spec)
    sweep(root, batches=1, given=first)
    other = load_model(config(root).model_spec)
    other.model.blocks[0].attn.num_heads //= 2  # type: ignore[index, operator]
    with pytest.raises(RunError, match=r"measured with another structure \(structure [0-9a-f]{16} -> [0-9a-f]{16}\)"):
        sweep(root, given=replace(other, weights=first.weights))


def test_random_weights_that_answer_no_image_are_those_of_their_seed(root: Path) -> None:
    """How they come out depends on the processor; no speed does on that."""
    loaded = load_model(replace(config(root).model_spec, checkpoint=None))
    here = made.made_by(loaded, torch.device("cpu"), None)
    assert here["weights"] == "random:0"
    assert made.made_by(loaded, torch.device("cpu"), accuracy_images(root))["weights"] != "random:0"


def test_turns_of_the_loader_are_results(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", {"model": "tiny"}) as store:
        store.put_cells(CELLS)
        assert not store.has_results
        store.put("end_to_end", {CELLS[0][0].key: [[8, 1.0, 1]]})
        assert store.has_results


def test_a_resaved_file_of_the_same_tensors_is_the_same_weights(root: Path) -> None:
    loaded = load_model(config(root).model_spec)
    sweep(root, batches=1, given=loaded)
    torch.save({"state_dict": loaded.model.state_dict()}, root / "again.pth")
    again = load_model(replace(config(root).model_spec, checkpoint=root / "again.pth"))
    assert sweep(root, given=replace(again, weights=loaded.weights))


@pytest.mark.parametrize("name", ["code", "Pillow", "torch"])
def test_other_code_and_libraries_take_another_folder(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(root, batches=1)
    match name:
        case "code":
            monkeypatch.setattr(identity, "code_digest", lambda: "0" * 16)
            monkeypatch.setattr(made, "code_digest", lambda: "0" * 16)
        case "Pillow":
            monkeypatch.setattr(identity, "_pillow", lambda: "1.0")
        case "torch":
            monkeypatch.setattr(identity, "_version", lambda library: "0.1" if library == "torch" else "9")
    with pytest.raises(RunError, match=rf"was measured with another {name} \({name} "):
        sweep(root)
    assert seen(root) == BATCH
    monkeypatch.chdir(root)
    usual = run_directory(config(root))
    usual.parent.mkdir()
    (root / "run").rename(usual)
    folder, why = choose_folder(config(root))
    assert folder.name == f"{usual.name}-2"
    assert why is not None
    assert f"a run of other code or libraries ({name} " in why


def test_a_run_from_before_reports_and_is_not_added_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", without_made)
        sweep(root, batches=1)
    with Store.read(root / "run") as store:
        assert store.get(MADE) is None
        assert [row.n_seen for row in build_rows(store)] == [BATCH, BATCH]
    with pytest.raises(
        RunError, match="by an older version, which did not keep what its figures are made of; it can be"
    ):
        sweep(root)


put = Store.put


def without_made(store: Store, key: str, value: object) -> None:
    if key != MADE:
        put(store, key, value)


def test_what_an_image_was_decoded_from_is_stored(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", {"model": "tiny"}) as store:
        fill(store)
        assert store.read_states() == {}
    with Store.open(tmp_path / "other", {"model": "tiny"}) as store:
        store.put_cells(CELLS)
        (chunk, *_) = make_chunks(make_images(4), {CELLS[0][0].key: set()})
        states = tuple(ImageState(f"{i:016x}", f"{i:032x}") for i in range(4))
        store.add_chunk(replace(chunk, read=states))
        assert store.read_states() == {0: states}


def test_the_origin_of_a_run_tells_it_from_one_of_other_images_or_weights(root: Path, tmp_path: Path) -> None:
    sweep(root)
    with Store.read(root / "run") as store:
        first = Origin.of(store)
    assert first.made["code"] == code_digest()
    assert sorted(first.content) == list(range(seen(root)))
    assert first.other_image(first) is None
    assert first.other_facts(first) == []
    changed = first._replace(
        content={**first.content, 3: "another"}, made={**first.made, "torch": "0", "structure": "1"}
    )
    assert first.other_image(changed) == "image number 4"
    assert first.other_image(changed._replace(images="another list")) is None
    assert [found.name for found in first.other_facts(changed)] == ["structure", "torch"]
    assert first.other_facts(Origin({}, None, {})) == []


def test_the_digest_of_the_code_is_that_of_what_makes_numbers(tmp_path: Path) -> None:
    package = Path(identity.__file__).parent
    copy = tmp_path / "elsewhere" / "tomebench"
    shutil.copytree(package, copy)
    here = code_digest()
    assert code_digest(copy) == here
    for shown in ("report/text.py", "cli/app.py", "reduction/README.md"):
        with (copy / shown).open("a") as file:
            file.write("\n")
    (copy / "datasets" / ".#decode.py").symlink_to(tmp_path / "nowhere")  # as an editor leaves it
    (copy / "sweeps" / ".ipynb_checkpoints").mkdir()
    (copy / "sweeps" / ".ipynb_checkpoints" / "run.py").write_text("old")
    crlf = (copy / "schema.py").read_bytes().replace(b"\n", b"\r\n")
    (copy / "schema.py").write_bytes(crlf)
    code_digest.cache_clear()
    assert code_digest(copy) == here
    for making in ("reduction/vit.py", "schema.py", "datasets/imagenet_wnids.txt", "models/digits_vit/model.py"):
        if not (copy / making).exists():
            continue
        before = code_digest(copy)
        with (copy / making).open("a") as file:
            file.write("\n")
        code_digest.cache_clear()
        assert code_digest(copy) != before, making


def test_one_comparison_names_the_first_difference() -> None:
    there = {"code": "a", "weights": "b"}
    assert difference(there, dict(reversed(there.items()))) is None
    assert str(difference(there, {"code": "a", "weights": "c"})) == "weights b -> c"
    assert str(difference({}, there)) == "code unknown -> a"
    assert str(difference(there, {"code": "a"})) == "weights b -> unknown"
