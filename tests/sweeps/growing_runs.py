"""Small sweeps that are gone on with, and what their folders hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tomebench.runs.row import Row
from tomebench.runs.store import Store
from tomebench.schema import CEILING, SENTINEL, UNWRAPPED, Cell
from tomebench.sweeps import run
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished

IMAGES, BATCH = 11, 4  # three batches, the last one short
COUNTED = ("n_seen", "top1_correct", "top5_correct", "ties", "delta_top1", "delta_top1_lo", "delta_top1_hi", "agreed")


def settings_of(flags: list[str]) -> dict[str, str]:
    return {name.removeprefix("--"): value for name, value in zip(flags[::2], flags[1::2], strict=True)}


def config(**settings: object) -> SweepConfig:
    defaults = {"model": "test_vit", "r": "0,4", "device": "cpu", "batch_size": BATCH, "workers": 0, "img_size": 64}
    settings = {**defaults, "budget": "quick", "threads": 1, **settings}
    if isinstance(settings.get("checkpoint"), str):
        settings["checkpoint"] = Path(str(settings["checkpoint"]))
    return load_config([], settings)


def sweep(directory: Path, should_stop: Callable[[], bool] = lambda: False, **settings: object) -> list[Row]:
    *_, last = run.run_sweep(config(**settings), directory, should_stop)
    assert isinstance(last, Finished)
    return list(last.rows)


def cells(directory: Path) -> dict[str, Cell]:
    with Store.read(directory) as store:
        return {cell.key: cell for cell, _ in store.cells()}


def timed(directory: Path) -> list[list[str]]:
    """What every round timed: ``r=4``, ``ceiling r=4``, the sentinel and the unwrapped model; sorted."""
    found = cells(directory)

    def name(variant: str) -> str:
        key = variant.removeprefix(CEILING)
        return variant if key not in found else f"{'ceiling ' * (key != variant)}r={found[key].r}"

    with Store.read(directory) as store:
        return [sorted(name(burst.variant) for burst in round_.bursts) for round_ in store.rounds()]


def round_of(*names: str) -> list[str]:
    return sorted([*names, SENTINEL, UNWRAPPED])


def answers(directory: Path) -> dict[int, tuple[bytes, bytes, int, int]]:
    """Every stored bit about the images, by r."""
    found = cells(directory)
    with Store.read(directory) as store:
        predictions = store.predictions()
    return {
        found[key].r: (p.top1.tobytes(), np.packbits(p.in_top5).tobytes(), p.ties, p.nonfinite)
        for key, p in predictions.items()
    }


def counted(rows: list[Row]) -> dict[int, list[object]]:
    return {row.r: [getattr(row, name) for name in COUNTED] for row in rows}
