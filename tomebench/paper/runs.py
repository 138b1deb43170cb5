"""Runs that measure the paper's tables: their configurations, missing weights or images, costs, and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, ModelError, RunError, SpecError
from tomebench.models.aliases import PRESETS
from tomebench.models.create import WeightsFile, build_model, resolve_model_name, weights_file
from tomebench.models.published import is_cached
from tomebench.paper.comparison import Cost, Found, Shape
from tomebench.paper.tables import WEIGHTS
from tomebench.paper.targets import PROP_ATTN, PaperTable
from tomebench.paper.verdicts import EVALUATIONS, Counted
from tomebench.reduction.backbone import Backbone
from tomebench.reduction.registry import get_method
from tomebench.reduction.schedule import parse_schedule
from tomebench.reduction.vit import ReducedViT
from tomebench.runs.database import FILE
from tomebench.runs.rows import build_rows
from tomebench.runs.settings import about_images, default
from tomebench.runs.store import Store
from tomebench.schema import Cell
from tomebench.sweeps.cells import reduced_vit, resolve_cells
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config, packaged_configs
from tomebench.sweeps.resume import covers

AUDIO: Mapping[str, Any] = {"img_size": (1024, 128), "in_chans": 1, "num_classes": 527}
"""The paper's spectrogram model, for its costs: 512 patches and 527 classes."""


@dataclass(frozen=True)
class TableRun:
    """One run of a table, with its configuration."""

    table: str
    name: str
    config: SweepConfig
    missing: tuple[str, ...]  # images or weights that it lacks for measuring what is reported
    weights: str  # file of weights expected in --weights, and where it is published

    @property
    def full_name(self) -> str:
        """Name of the table and of the run."""
        return f"{self.table}/{self.name}"


def run_files(table: str, only: str | None = None) -> dict[str, Path]:
    """Configuration files of a table, by name of the run.

    Raises:
        SpecError: the table has no run ``only``.
    """
    prefix = f"paper/{table}/"
    found = {name.removeprefix(prefix): path for name, path in packaged_configs().items() if name.startswith(prefix)}
    if only is None:
        return found
    if only not in found:
        there = f"it has {', '.join(found)}" if found else "nothing in it is measured here"
        raise SpecError(f"table {table} has no run {only[:40]!r}; {there}")
    return {only: found[only]}


def table_runs(
    table: PaperTable,
    only: str | None,
    flags: Mapping[str, object],
    weights: Path | None,
    *,
    speed_only: bool,
    extra: Sequence[Path] = (),
) -> list[TableRun]:
    """Runs of a table, with the user's settings on top of their configurations.

    Args:
        table: the table.
        only: name of one of its runs; None is all.
        flags: fields of :class:`SweepConfig`, None for "not given". Settings about images go to the runs that use any.
        weights: folder with files of weights under the names they are published by.
        speed_only: time all cells with random weights, and evaluate no images.
        extra: YAML files on top of a run's own.

    Raises:
        InputError: no such run, or settings that cannot be used.
    """
    files = run_files(table.name, only)
    targets = list(table.targets())
    evaluated = {each.run for each in targets if each.acc is not None and each.reported.metric in EVALUATIONS}
    timed_only = {each.run for each in targets} - evaluated
    runs = []
    for name, path in files.items():
        needs_images = name not in timed_only and not speed_only
        own, missing = {key: value for key, value in flags.items() if value is not None}, []
        if name in timed_only and own.get("budget") == "none":
            del own["budget"]
            missing.append("speed: --budget none times nothing")
        if not needs_images:
            own = {key: value for key, value in own.items() if key not in about_images()}
        config = load_config([path, *extra], own)
        if not needs_images:
            config = config.model_copy(update={key: default(key) for key in about_images()})
            if config.budget == "none":
                raise ConfigError("budget none times nothing, and only speed is asked for; give another --budget")
        if config.checkpoint is not None and len(files) > 1:
            some = ", ".join(f"{table.name}/{each}" for each in files)
            raise ConfigError(
                f"--checkpoint is one file for {len(files)} runs; name one ({some}), or pass --weights DIR"
            )
        if config.checkpoint is not None and not config.checkpoint.is_file():
            raise ModelError(f"checkpoint {config.checkpoint}: no such file; give a .safetensors or .pth file")
        expected = _expected(f"{table.name}/{name}", config)
        if needs_images and config.data is None:
            missing.append("images: pass the validation set of ImageNet with --data")
        if needs_images and config.checkpoint is None:
            file = None if weights is None else weights / expected.name
            if file is not None and file.is_file():
                config = config.model_copy(update={"checkpoint": file})
            elif f"{table.name}/{name}" in WEIGHTS or not _can_be_had(config):
                missing.append(f"weights: {expected}; put it into a folder and pass that with --weights")
        runs.append(TableRun(table.name, name, config, tuple(missing), str(expected)))
    return runs


def _expected(run: str, config: SweepConfig) -> WeightsFile:
    """Published file with the weights of a run."""
    timm_id = resolve_model_name(config.model)
    if run in WEIGHTS:
        return WeightsFile(WEIGHTS[run].rpartition("/")[2], f"at {WEIGHTS[run]}")
    hub = f"as model.safetensors of timm/{timm_id} on the Hugging Face hub"
    return weights_file(timm_id) or WeightsFile(f"{timm_id}.safetensors", hub)


def _can_be_had(config: SweepConfig) -> bool:
    """Whether a model's weights are available without a file: packaged, in the cache, or by download."""
    timm_id = resolve_model_name(config.model)
    if weights_file(timm_id) is not None:
        return False
    return timm_id in PRESETS or is_cached(timm_id) or not (config.offline or constants.HF_HUB_OFFLINE)


def found(run: TableRun) -> Found:
    """Costs of a run's cells, from shapes alone; nothing is measured and no weights are read.

    Raises:
        InputError: the model and the settings cannot be combined.
    """
    config = run.config.model_copy(update={"attention": "auto"})
    loaded = build_model(dataclasses.replace(config.model_spec, checkpoint=None), meta=True)
    backbone = adapt(loaded.model)
    cells = resolve_cells(config, loaded, weights="", batch_size=1, device="cpu")
    costs = [
        Cost(
            r=cell.cell.r,
            schedule=cell.cell.schedule,
            changed=_changed(cell.cell),
            gmacs=cell.resolved.gmacs,
            mac_ratio=cell.resolved.gmacs_unwrapped / cell.resolved.gmacs,
            tokens=cell.resolved.tokens,
            seen=_seen(reduced_vit(backbone, config, cell, _Traced), loaded.model),
        )
        for cell in cells
    ]
    size = cells[0].cell.img_size
    return Found(
        name=run.name,
        title=f"{run.name}: {loaded.timm_id}, {size} px",
        shape=_shape(backbone, loaded.model, str(size)),
        prop_attn="on" if config.prop_attn else "off",
        costs=costs,
        dtype=config.dtype,
    )


def found_audio(name: str) -> Found:
    """Costs of the paper's audio model, for which there is no configuration."""
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", **AUDIO).eval()
    backbone = adapt(model)
    terms = backbone.macs()
    whole = terms.gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    costs = []
    for r in (0, 20, 40):
        merged = _Traced(backbone, get_method("tome"), parse_schedule("constant").r_layers(r, backbone.depth))
        gmacs, planned = terms.gmacs(backbone.tokens, merged.token_counts), tuple(merged.token_counts)
        costs.append(Cost(r, "constant", {PROP_ATTN: "on"}, gmacs, whole / gmacs, planned, _seen(merged, model)))
    title = f"{name}: ViT-B/16 for spectrograms of 1024 x 128, 527 classes"
    return Found(name, title, _shape(backbone, model, "spectrogram"), "on", costs)


def measured_before(run: TableRun, directory: Path) -> bool:
    """Whether a folder holds the results of a run, measured as asked, whose images or weights are missing now.

    Raises:
        StorageError: the store is damaged.
    """
    if not (directory / FILE).exists():
        return False
    try:
        with Store.read(directory) as store:
            apart = {*about_images(), "checkpoint"}  # what is missing now may differ
            asked = {name: value for name, value in run.config.stored().items() if name not in apart}
            return covers(store, asked | {name: value for name, value in store.config.items() if name in apart})
    except RunError:  # nothing was measured yet
        return False


def with_measured(facts: Found, run: TableRun, directory: Path) -> Found:
    """Add to a run's costs the rows and predictions that its folder holds.

    Raises:
        StorageError: the store is damaged.
    """
    with Store.read(directory) as store:
        cells = sorted((cell for cell, _ in store.cells()), key=lambda cell: cell.r)
        measured = dict(
            zip(((cell.r, tuple(_changed(cell).items())) for cell in cells), build_rows(store), strict=True)
        )
        images = store.images()
        whole = images is not None and images.note is None and images.labels.ndim == 1
    rows, counted = {}, {}
    for place, cost in enumerate(facts.costs):
        row = measured.get((cost.r, tuple(cost.changed.items())))
        if row is None:
            continue
        rows[place] = row
        if row.top1_correct is not None and row.n_seen is not None:
            counted[place] = Counted(row.top1_correct, row.n_seen, whole)
    return dataclasses.replace(facts, rows=rows, counted=counted, dtype=run.config.dtype)


def _changed(cell: Cell) -> dict[str, str]:
    """Options of a cell that differ from the paper's, and proportional attention as on or off."""
    options = {name: str(value) for name, value in cell.options} | {PROP_ATTN: "on" if cell.prop_attn else "off"}
    return dict(sorted(options.items()))


class _Traced(ReducedViT):
    """Wrapper that records how many tokens every block leaves."""

    left: list[int]

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]; records N, which the MLP does not change."""
        self.left.append(x.shape[1])
        return x


@torch.inference_mode()
def _seen(merged: ReducedViT, model: nn.Module) -> tuple[int, ...]:
    """Tokens after every block of a pass over one empty image on the meta device, where only shapes are computed."""
    assert isinstance(merged, _Traced)
    merged.left = []
    of: Any = model
    merged(torch.zeros(1, of.in_chans, *of.patch_embed.img_size, device="meta"))
    return tuple(merged.left)


def _shape(backbone: Backbone, model: nn.Module, image_size: str) -> Shape:
    of: Any = model
    return Shape(
        int(of.embed_dim),
        backbone.depth,
        int(of.patch_embed.patch_size[0]),
        backbone.tokens,
        backbone.prefix,
        image_size,
    )
