"""How bursts, predictions and cells stand in the store, and in what two of them differ. Pure functions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tomebench.schema import Burst, Cell, CellPredictions, Resolved, canonical_json

_ABOUT_BURST = ("mhz", "passes", "capped", "slowed", "backlog", "allocated")
_OF_ONE_CELL = frozenset({"r", "schedule", "options"})
"""Fields in which two cells of one run differ."""
_ALIKE = tuple(each.name for each in dataclasses.fields(Resolved) if each.metadata.get("alike"))
"""What cells of one run come to alike."""


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """``field: stored -> asked`` for every field that differs."""
    texts = [{name: json.dumps(value) for name, value in fields.items()} for fields in (stored, asked)]
    names = dict.fromkeys([*stored, *asked])
    pairs = [(name, *(text.get(name, "not set") for text in texts)) for name in names]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def cell_differences(stored: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what cells differ from those that are stored: the same cell in anything, another one in what all share.

    Args:
        stored: cells as the store has them, each with what it came to.
        asked: those that are to be measured, written in the same way.
    """
    there = {(cell := Cell.from_json(item["cell"])).key: (cell, item["resolved"]) for item in stored}
    differing = []
    for item in asked:
        new = Cell.from_json(item["cell"])
        old, resolved = there.get(new.key) or next(iter(there.values()))
        # With the fields that it is too old to have.
        fields = [json.loads(canonical_json(cell.to_json())) for cell in (old, new)]
        both = [Resolved.from_json(each) for each in (resolved, item["resolved"])]
        facts = [json.loads(canonical_json(each.to_json())) for each in both]
        if new.key in there:
            # Which kernel runs is the library's choice, and whether that is another one the testbed says.
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
    extra.pop("joules", None)  # of older stores: the energy of a burst too short for its counter
    return Burst(*stored[:4], **{**extra, "passes": tuple(extra.get("passes", ()))})


def concatenated(parts: Sequence[CellPredictions]) -> CellPredictions:
    """Predictions for the images of all parts, in their order."""
    return CellPredictions(
        np.concatenate([part.top1 for part in parts]),
        np.concatenate([part.in_top5 for part in parts]),
        sum(part.ties for part in parts),
        sum(part.nonfinite for part in parts),
    )
