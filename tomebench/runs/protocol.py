"""What a row was measured with, as one hash: two rows may be compared if and only if it is equal. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tomebench.reduction.methods.flags import OPTIONS
from tomebench.schema import Cell, Resolved, fingerprint

_STATED_EXACTLY = frozenset(
    {
        "model",
        "checkpoint",
        "img_size",
        "preprocessing",
        "r",
        "schedule",
        "method",
        "prop_attn",
        "ablate",
        "real",
        "allow_missing",
        "use_ema",
        "class_names",
        "labels",
    }
    | {"data", "limit", "device", "dtype", "batch_size", "attention", "prefix_only", "compile", "cuda_graphs", "mode"}
    | {"ceiling", "end_to_end", "cells", "processes"}  # more or less to do, which changes nothing about the rest
    | {"option", *OPTIONS}
)
"""Settings whose outcome is in the cell or the image list: a path, or "auto", says less than what it came to."""
_RUN = ("timm_id", "r_layers", "tokens_in", "crop_pct", "interpolation", "mean", "std")
"""Fields of Resolved that say what runs; the others are costs that follow from it."""


def unstated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that neither its cells nor its images state."""
    return {name: value for name, value in config.items() if name not in _STATED_EXACTLY}


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
            "resolved": {name: runs[name] for name in _RUN},
            "images": images,
            "settings": {**settings, "budget": budget} if "budget" in settings else {**settings},
        }
    )
