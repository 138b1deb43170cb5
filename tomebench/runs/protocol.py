"""The protocol hash of a row: model, r, options, settings, budget and images that it was measured with.

Two rows may be compared if and only if their protocols are equal. Pure functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tomebench.runs.settings import settings
from tomebench.schema import Cell, Resolved, fingerprint

_COVERED = tuple(each.name for each in dataclasses.fields(Resolved) if each.metadata.get("protocol"))
"""Fields of Resolved that decide what is computed; the others, such as GMACs, follow from them."""


def unstated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration that the cell and the image list do not already record in resolved form."""
    stated = {name for name, setting in settings().items() if setting.states}
    return {name: value for name, value in config.items() if name not in stated}


def protocol(cell: Cell, resolved: Resolved, settings: Mapping[str, Any], budget: str, images: str | None) -> str:
    """Protocol hash of a cell: its settings and their resolved form.

    Other values of r in the run, paths, and "auto" as against the value it was resolved to make no difference. Machine
    and library versions belong to the testbed: comparing them is what comparisons are for.

    Args:
        cell: whose row it is.
        resolved: its resolved form.
        settings: :func:`unstated` of the run.
        budget: name of the budget that the cell is judged by.
        images: digest of the image list; None without images.
    """
    runs = resolved.to_json()
    return fingerprint(
        {
            "cell": cell.key,
            "fused": not resolved.attn_kernel.startswith("unfused"),
            "resolved": {name: runs[name] for name in _COVERED},
            "images": images,
            "settings": {**settings, "budget": budget} if "budget" in settings else {**settings},
        }
    )
