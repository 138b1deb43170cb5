"""Compare the static tier: tokens, costs, preprocessing, and logits of a fixed input must be equal, within rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tomebench.gate.records import CellRecord, Static
from tomebench.gate.verdict import Finding
from tomebench.words import counted

LOGIT_TOLERANCE = 1e-5
"""Largest difference of two logits, relative to the image's largest, that is rounding: both are in double precision."""
_COST_TOLERANCE = 1e-9


def compare_static(pairs: Mapping[str, tuple[CellRecord, CellRecord]]) -> list[Finding]:
    """One finding for each cell: ``same``, ``worse`` (anything changed), or ``incomparable`` (other weights)."""
    return [_compare(name, old.static, new.static) for name, (old, new) in pairs.items() if old.static and new.static]


def _compare(name: str, old: Static, new: Static) -> Finding:
    for field, what in (("input", "the fixed input is another one"), ("weights", "the weights are others")):
        if getattr(old, field) != getattr(new, field):
            return Finding("static", name, "incomparable", what)
    changes = []
    for field, unit in (("tokens", "tokens after the last block"), ("r_layers", "tokens removed in all")):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            ends = [values[-1] if field == "tokens" else sum(values) for values in (before, after) if values]
            changes.append(f"{unit} {' -> '.join(map(str, ends))}")
    for field, unit in (("gmacs", "GMACs"), ("params_m", "M parameters")):
        before, after = getattr(old, field), getattr(new, field)
        if not math.isclose(before, after, rel_tol=_COST_TOLERANCE):
            changes.append(f"{unit} {before:.6g} -> {after:.6g}")
    if old.preprocessing != new.preprocessing:
        changes.append(f"preprocessing {old.preprocessing} -> {new.preprocessing}")
    if old.shape != new.shape:
        changes.append(f"logits of shape {old.shape} -> {new.shape}")
        worst = None
    else:
        before, after = old.values(), new.values()
        worst = float((np.abs(after - before).max(axis=1) / np.abs(before).max(axis=1).clip(min=1e-30)).max())
        flipped = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
        if flipped:
            changes.append(f"top-1 of {flipped} of {counted(len(before), 'fixed image')}")
        if worst > LOGIT_TOLERANCE:
            changes.append(f"logits by up to {worst:.2g} of the largest")
    detail = "; ".join(changes) if changes else "tokens, GMACs, parameters, preprocessing and logits"
    return Finding("static", name, "worse" if changes else "same", detail, change=worst)
