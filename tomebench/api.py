"""The public functions of the package; ``tomebench.apply`` and the others are these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomebench.backbones.apply import apply

if TYPE_CHECKING:
    import pandas as pd

    from tomebench.schema import Row

__all__ = ["apply", "load_results", "sweep"]


def sweep(model: str, r: str = "0..24", *, out: str | Path, **settings: Any) -> list[Row]:
    """Measure what merging r tokens per layer does to a model's speed, and with ``data`` to its accuracy.

    Args:
        model: alias, preset or timm id.
        r: values of r, such as "0..24", "0..24:4" or "0,8,16".
        out: run folder; the same settings on the same folder resume.
        settings: every flag of ``tomebench sweep``, with underscores.

    Reading more than a thousand images starts worker processes that import the caller's script again: call this under
    ``if __name__ == "__main__":``, or pass ``workers=0``.

    Returns:
        One row per r. The run folder holds the raw measurements.

    Raises:
        TomebenchError: see :mod:`tomebench.errors`.
    """
    from tomebench.sweeps.config import load_config
    from tomebench.sweeps.events import Finished
    from tomebench.sweeps.run import run_sweep

    config = load_config([], {"model": model, "r": r, "out": out, **settings})
    for event in run_sweep(config, Path(out), should_stop=lambda: False):
        if isinstance(event, Finished):
            return list(event.rows)
    raise AssertionError("a sweep ends with its rows")


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
