"""JSON form of bursts and predictions in the store, and the fields in which cells differ. Pure functions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tomebench.schema import Burst, Cell, CellPredictions, Resolved, canonical_json

_ABOUT_BURST = ("mhz", "passes", "capped", "slowed", "backlog", "allocated")
_OF_ONE_CELL = frozenset({"method", "r", "schedule", "options"})
"""Fields in which cells of one run may differ."""
_ALIKE = tuple(each.name for each in dataclasses.fields(Resolved) if each.metadata.get("alike"))
"""Fields of Resolved that all cells of one run share."""


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """``field: stored -> asked`` for every field that differs."""
    texts = [{name: json.dumps(value) for name, value in fields.items()} for fields in (stored, asked)]
    names = dict.fromkeys([*stored, *asked])
    pairs = [(name, *(text.get(name, "not set") for text in texts)) for name in names]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def cell_differences(stored: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields in which cells differ from the stored ones: all of them for a stored cell, the shared ones for a new cell.

    Args:
        stored: cells as the store has them, each with its resolved form.
        asked: cells that are to be measured, in the same form.
    """
    there = {(cell := Cell.from_json(item["cell"])).key: (cell, item["resolved"]) for item in stored}
    differing = []
    for item in asked:
        new = Cell.from_json(item["cell"])
        old, resolved = there.get(new.key) or next(iter(there.values()))
        # Read and written again, so that fields younger than the store are there.
        fields = [json.loads(canonical_json(cell.to_json())) for cell in (old, new)]
        both = [Resolved.from_json(each) for each in (resolved, item["resolved"])]
        facts = [json.loads(canonical_json(each.to_json())) for each in both]
        if new.key in there:
            # The library chooses the kernel; the testbed records the library's version.
            facts[0]["attn_kernel"] = facts[1]["attn_kernel"]
        else:
            fields = [{name: value for name, value in each.items() if name not in _OF_ONE_CELL} for each in fields]
            facts = [{name: each[name] for name in _ALIKE} for each in facts]
        differing += differences(*fields) + differences(*facts)
    return list(dict.fromkeys(differing))


def packed(burst: Burst) -> list[Any]:
    """A burst as JSON, without what was not measured: [variant, steps, seconds, compiled, {mhz, passes, ...}]."""
    extra = {name: value for name in _ABOUT_BURST if (value := getattr(burst, name)) != getattr(Burst, name)}
    always = [burst.variant, burst.steps, burst.seconds]
    return [*always, burst.compiled, extra] if extra else [*always, *([burst.compiled] if burst.compiled else [])]


def unpacked(stored: list[Any]) -> Burst:
    """Inverse of :func:`packed`."""
    extra = dict(stored[4]) if len(stored) > 4 else {}
    extra.pop("joules", None)  # older stores have the energy of a burst, too short for its counter
    return Burst(*stored[:4], **{**extra, "passes": tuple(extra.get("passes", ()))})


def concatenated(parts: Sequence[CellPredictions]) -> CellPredictions:
    """Predictions for the images of all parts, in the order of the parts."""
    return CellPredictions(
        np.concatenate([part.top1 for part in parts]),
        np.concatenate([part.in_top5 for part in parts]),
        sum(part.ties for part in parts),
        sum(part.nonfinite for part in parts),
    )
