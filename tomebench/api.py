"""The public functions of the package; ``tomebench.apply`` and the others are these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tomebench.backbones.apply import apply

if TYPE_CHECKING:
    import pandas as pd

    from tomebench.gate.verdict import Finding
    from tomebench.schema import Row

__all__ = ["apply", "check", "load_results", "sweep"]


def sweep(model: str, r: str = "0..24", *, out: str | Path, **settings: Any) -> list[Row]:
    """Measure what merging r tokens per layer does to a model's speed, and with ``data`` to its accuracy.

    Args:
        model: alias, preset or timm id.
        r: values of r, such as "0..24", "0..24:4" or "0,8,16".
        out: run folder; the same settings on the same folder resume.
        settings: every flag of ``tomebench sweep``, with underscores.

    Reading more than a thousand images starts worker processes that import the caller's script again: call this under
    ``if __name__ == "__main__":``, or pass ``workers=0``. From the first call on, memory that is freed stays with the
    process (:mod:`tomebench.measure.allocator`).

    Returns:
        One row per r; none in a process of rank 1 and up, where torchrun has started several. The run folder holds the
        raw measurements.

    Raises:
        TomebenchError: see :mod:`tomebench.errors`.
    """
    from tomebench.sweeps.config import load_config
    from tomebench.sweeps.events import Finished
    from tomebench.sweeps.run import run_sweep

    config = load_config([], {"model": model, "r": r, "out": out, **settings})
    rows: list[Row] = []
    for event in run_sweep(config, Path(out), should_stop=lambda: False):
        if isinstance(event, Finished):
            rows = list(event.rows)  # not returned at once: other processes wait for the end
    return rows


def check(
    run: str | Path | None,
    baseline: str | Path,
    *tiers: Literal["static", "accuracy", "speed"],
    tolerance: float = 5.0,
    max_drop: str | float = 0.5,
    absolute: bool = False,
    confirm: bool = True,
    checkpoint: str | Path | None = None,
) -> list[Finding]:
    """Compare a run with a stored baseline, as ``tomebench check`` does.

    Args:
        run: run folder; None computes the static tier of the baseline's own settings.
        baseline: file that ``tomebench check --update-baseline`` wrote.
        tiers: what to look at; by default all that the baseline has.
        tolerance: slow-down that is still the same, in %.
        max_drop: top-1 that may be lost: 0.5 (points) or "3images".
        absolute: compare images per second too, where the testbeds match.
        confirm: measure what looks slower once more, in a fresh process, before saying so.
        checkpoint: where the weights are on this machine.

    Returns:
        A finding for each tier and cell. Nothing has become worse if and only if there is one and every ``verdict`` is
        "same" or "better".

    Raises:
        TomebenchError: see :mod:`tomebench.errors`; BaselineError where the baseline cannot be used.
    """
    from tomebench.gate.compare import Limits
    from tomebench.gate.speed import SpeedLimits
    from tomebench.gate.top1 import MaxDrop
    from tomebench.sweeps.checking import judge

    limits = Limits(SpeedLimits(tolerance / 100, absolute), MaxDrop.parse(max_drop))
    folder = None if run is None else Path(run)
    weights = None if checkpoint is None else Path(checkpoint)
    return list(judge(folder, Path(baseline), tiers, limits, confirm=confirm, checkpoint=weights).findings)


def load_results(run: str | Path) -> pd.DataFrame:
    """The result table of a run folder, rebuilt from what was measured.

    Returns:
        One line per row with the columns of :data:`tomebench.schema.COLUMNS`; what was not measured is missing.

    Raises:
        InputError: no run there.
        StorageError: the store is damaged.
    """
    from tomebench.report.frames import to_frame
    from tomebench.sweeps.rows import build_rows
    from tomebench.sweeps.store import Store

    with Store.read(Path(run)) as store:
        return to_frame(build_rows(store))
