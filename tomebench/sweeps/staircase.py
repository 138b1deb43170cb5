"""Measure the latency staircase of a model on a device, and keep it in a file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tomebench.ambient import usual_state
from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, InputError, Interrupted
from tomebench.identity import code_digest
from tomebench.measure.allocator import keep_memory
from tomebench.measure.clock import clock_for
from tomebench.measure.device import arithmetic, device_name, resolve_device
from tomebench.measure.staircase import numbers_of_tokens, time_staircase
from tomebench.measure.testbed import describe
from tomebench.models.create import load_model
from tomebench.reduction.attention import check_route
from tomebench.regular import read_bytes
from tomebench.runs.budget import BUDGETS
from tomebench.runs.stairs import Stair
from tomebench.runs.testbed import fingerprint
from tomebench.schema import Cell, canonical_json
from tomebench.sweeps.batch_size import choose_batch_size
from tomebench.sweeps.cells import reduced_vit, resolve_cells
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Phase, Progress
from tomebench.sweeps.failures import no_room_is_an_input_error
from tomebench.sweeps.inputs import preprocessing_of, timing_inputs, weights_dtype
from tomebench.whole import write_whole

FORMAT = "tomebench staircase 1"
_MOST = 2**26
"""Most bytes of a file."""


@dataclass(frozen=True)
class Staircase:
    """Times of a block of a model at every number of tokens, and the conditions they were measured under."""

    model: str  # timm id with tag
    img_size: int
    batch_size: int
    dtype: str
    device: str
    attention: str
    depth: int
    layer: int  # block that was timed, from 0
    code: str  # digest
    testbed: dict[str, Any]
    stairs: tuple[Stair, ...]  # ascending numbers of tokens
    removal: str = ""  # method and options of the tokens that were removed; empty: that was not timed

    def to_json(self) -> str:
        """Text that :func:`read_staircase` reads back."""
        stairs = [
            [each.tokens, *map(list, (each.attention, each.mlp, *((each.sized, each.removal) if self.removal else ())))]
            for each in self.stairs
        ]
        own = {name: value for name, value in vars(self).items() if name != "stairs" and value != ""}
        return canonical_json({"format": FORMAT, **own, "stairs": stairs})


_Times = list[float]
_Two = tuple[int, _Times, _Times]
_Four = tuple[int, _Times, _Times, _Times, _Times]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    format: str = Field(pattern=f"^{FORMAT}$")
    model: str = Field(max_length=500)
    img_size: int = Field(ge=1, le=65_536)
    batch_size: int = Field(ge=1, le=65_536)
    dtype: str = Field(max_length=20)
    device: str = Field(max_length=50)
    attention: str = Field(max_length=50)
    depth: int = Field(ge=1, le=10_000)
    layer: int = Field(ge=0, le=10_000)
    code: str = Field(max_length=64)
    testbed: dict[str, bool | int | float | str | None]
    stairs: list[_Two | _Four] = Field(min_length=1, max_length=100_000)
    removal: str = Field(default="", max_length=2000)

    @model_validator(mode="after")
    def _even(self) -> _File:
        rounds = {len(times) for _, *stages in self.stairs for times in stages}
        counts = [tokens for tokens, *_ in self.stairs]
        if len(rounds) != 1 or rounds == {0} or min(counts) < 1 or counts != sorted({*counts}):
            raise ValueError("numbers of tokens must ascend, each with equally many times")
        if {len(stages) for _, *stages in self.stairs} != {4 if self.removal else 2}:
            raise ValueError("every number of tokens must have the same stages")
        if any(not 0 < ms < 1e9 for _, *stages in self.stairs for times in stages for ms in times):
            raise ValueError("times must be above 0")
        return self


def unlike(staircase: Staircase, cell: Cell, threads: int) -> str:
    """How a staircase is not of a cell on this machine, with so many CPU threads; empty if it is."""
    facts = ("model", "img_size", "batch_size", "dtype", "device", "attention")
    here = {name: getattr(cell, name) for name in facts} | {"removal": removal_of(cell)}
    for name, value in here.items():
        if (there := getattr(staircase, name)) != value:
            return f"{name} ({there or 'none'}, not {value})"
    if fingerprint(staircase.testbed) != fingerprint(describe(torch.device(cell.device), threads)):
        return "machine, or of other libraries or threads"
    return "" if staircase.code == code_digest() else "version of tomebench"


def read_staircase(path: Path) -> Staircase:
    """Read a file that :func:`run_staircase` was written to.

    Raises:
        InputError: it is none.
    """
    try:
        found = _File.model_validate(json.loads(read_bytes(str(path), most=_MOST).decode()))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; name a file of tomebench staircase"
        ) from error
    except (ValueError, ValidationError, RecursionError) as error:
        raise InputError(f"{path} is no staircase; tomebench staircase writes one") from error
    stairs = tuple(Stair(tokens, *map(tuple, stages)) for tokens, *stages in found.stairs)
    own = {name: value for name, value in vars(found).items() if name not in ("format", "stairs")}
    return Staircase(**own, stairs=stairs)


def write_staircase(path: Path, staircase: Staircase) -> None:
    """Write a staircase to a file, whole or not at all."""
    write_whole(path, staircase.to_json() + "\n")


def removal_of(cell: Cell) -> str:
    """What removes tokens of a cell, in words: method, options and whether attention counts sizes."""
    changed = (f"{name}={value}" for name, value in (*cell.options, ("prop_attn", cell.prop_attn)))
    return " ".join([cell.method, *changed])


def run_staircase(
    config: SweepConfig,
    step: int,
    should_stop: Callable[[], bool],
    *,
    removal: bool = False,
    rounds: int | None = None,
) -> Generator[Event, None, Staircase]:
    """Time the middle block of a model at numbers of tokens from all down to one patch.

    Args:
        config: model, device, dtype, batch size and attention.
        step: between two numbers of tokens.
        should_stop: asked between two bursts.
        removal: also time attention of merged tokens, and removing tokens by the method of the configuration.
        rounds: how many; by default twice the least number of the budget, as many as tell a step between neighbours,
            of which there are many.

    Raises:
        InputError: the model or device cannot be used as asked, or passes would not be eager inference.
        Interrupted: ``should_stop()`` became true; nothing is kept.
    """
    for name, given in (("compile", config.compile), ("cuda-graphs", config.cuda_graphs)):
        if given:
            raise ConfigError(f"staircase times a block alone, eagerly, which --{name} has no part in; drop it")
    if config.mode != "infer" or config.budget == "none":
        other = f"--mode {config.mode}" if config.mode != "infer" else "--budget none"
        raise ConfigError(f"staircase times forward passes, and {other} times none; drop it")
    if step < 1:
        raise InputError(f"--step {step}: give a whole number of tokens from 1")
    device = resolve_device(config.device, config.dtype)
    check_route(config.attention, device, config.dtype, training=False)
    keep_memory()
    with usual_state(), arithmetic(config.dtype, config.threads) as threads, no_room_is_an_input_error():
        rounds = 2 * BUDGETS[config.budget].min_rounds if rounds is None else rounds
        return (yield from _measured(config, step, should_stop, device, threads, removal, rounds))


def _measured(
    config: SweepConfig,
    step: int,
    should_stop: Callable[[], bool],
    device: torch.device,
    threads: int,
    removal: bool,
    rounds: int,
) -> Generator[Event, None, Staircase]:
    def stop_if_asked() -> None:
        if should_stop():
            raise Interrupted("stopped between two bursts; nothing is kept")

    yield Phase("load", None)
    loaded = load_model(config.model_spec, pretrained=False)  # speed needs no weights
    loaded.model.to(device=device, dtype=weights_dtype(config))
    backbone, preprocessing = adapt(loaded.model), preprocessing_of(config, loaded.model)
    batch_size = config.batch_size
    if not isinstance(batch_size, int):
        batch_size = choose_batch_size(config, loaded.model, preprocessing, device)
    one_cell = config.model_copy(update={"r": "1" if removal else "0", "schedule": "constant"})
    cells = resolve_cells(one_cell, loaded, weights="", batch_size=batch_size, device=device_name(device))
    vit, layer = reduced_vit(backbone, one_cell, cells[-1]), backbone.depth // 2
    (images,) = timing_inputs(None, preprocessing, batch_size, device, weights_dtype(config), config.seed, 1)
    with torch.inference_mode():
        unmerged = reduced_vit(backbone, one_cell, cells[0])
        tokens, _ = next(itertools.islice(unmerged.states(images), layer, None))  # as they come into that block
    counts = numbers_of_tokens(tokens.x.shape[1], backbone.prefix, step, removal=removal)
    counts = [n for n in counts if not removal or vit.method.cap(n, backbone.prefix)]  # some need more than two patches
    yield Phase("timing", float(rounds))
    clock = clock_for(device)
    timed = time_staircase(vit, layer, tokens, counts, rounds, clock, config.seed, stop_if_asked, removal=removal)
    stairs: list[Stair] = []
    for done, so_far in enumerate(timed, start=1):
        stairs = so_far
        yield Progress("timing", float(done), float(rounds), "rounds", "")
    return Staircase(
        model=loaded.timm_id,
        img_size=preprocessing.input_size[-1],
        batch_size=batch_size,
        dtype=config.dtype,
        device=device_name(device),
        attention=config.attention,
        depth=backbone.depth,
        layer=layer,
        code=code_digest(),
        testbed=describe(device, threads),
        stairs=tuple(stairs),
        removal=removal_of(cells[-1].cell) if removal else "",
    )
