"""Records of runs that never were, for the gate to compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated_machine import asked

from tomebench.gate.records import (
    Accuracy,
    CellRecord,
    Snapshot,
    Speed,
    Static,
    packed_bits,
    packed_logits,
)

LOGITS = np.array([[1.0, 2.0, -3.0], [0.5, 0.25, 0.0]])


def accuracy(right: np.ndarray, **changes: Any) -> Accuracy:
    fields = {"dataset": "digits", "digest": "abc", "n_seen": len(right), "complete": True, "right": packed_bits(right)}
    return Accuracy.model_validate({**fields, **changes})


def cell(r: int = 8, **changes: Any) -> CellRecord:
    about = {name: changes.pop(name) for name in list(changes) if name not in CellRecord.model_fields}
    return CellRecord(asked=asked(r, **about), **changes)


def snapshot(*cells: CellRecord, **changes: Any) -> Snapshot:
    return Snapshot(testbed="", settings={}, cells=cells, **changes)


def speed(ratio: float, rounds: int = 20, noise: float = 0.01, seed: int = 0, **changes: Any) -> Speed:
    """Rounds in which the cell is ``ratio`` times as fast as what it is compared with."""
    rng = np.random.default_rng(seed)
    reference = tuple((0.1 * np.exp(rng.normal(0, noise, rounds))).tolist())
    seconds = tuple((np.array(reference) / ratio * np.exp(rng.normal(0, noise, rounds))).tolist())
    return Speed.model_validate({"seconds": seconds, "reference": reference, "testbed": "here", **changes})


def static(values: np.ndarray = LOGITS, **changes: Any) -> Static:
    fields = {
        "r_layers": (8, 8), "tokens": (189, 181), "gmacs": 1.25, "params_m": 5.7, "preprocessing": "crop 0.9",
        "weights": "cafe", "input": "feed", "shape": values.shape, "logits": packed_logits(values),
    }  # fmt: skip
    return Static.model_validate({**fields, **changes})
