"""What a row was measured with, as one hash: two rows may be compared if and only if it is equal. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tomebench.runs.settings import settings
from tomebench.schema import Cell, Resolved, fingerprint

_COVERED = tuple(each.name for each in dataclasses.fields(Resolved) if each.metadata.get("protocol"))


def unstated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that neither its cells nor its images state."""
    stated = {name for name, setting in settings().items() if setting.states}
    return {name: value for name, value in config.items() if name not in stated}


def protocol(cell: Cell, resolved: Resolved, settings: Mapping[str, Any], budget: str, images: str | None) -> str:
    """Hash of what was asked and what it came to.

    It covers the cell, what runs for it, the images and the remaining settings (its own budget, seed, threads), so
    neither the other values of r, nor what they were measured with, nor paths, nor "auto" matter. The machine and the
    library versions are the testbed's part: a change of theirs is what comparisons are made for.

    Args:
        cell: whose row it is.
        resolved: what it came to.
        settings: :func:`unstated` of the run.
        budget: name of the one that the cell is judged by.
        images: digest of the list; None without.
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
