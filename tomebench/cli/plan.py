"""``tomebench plan``: tokens per layer, GMACs and estimated time of a sweep, without measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tomebench.cli.launch import LaunchFlags
from tomebench.cli.options import takes_sweep_flags
from tomebench.errors import DeviceError
from tomebench.report.escape import clean
from tomebench.report.narrow import Step, without
from tomebench.words import counted, duration

if TYPE_CHECKING:
    from tomebench.sweeps.cells import ResolvedCell
    from tomebench.sweeps.config import SweepConfig

_TOKENS = "tokens after each layer"
_CAPPED = "capped at what the method can remove"
_NARROWER = (
    Step("notes", "notes", lambda cells: [cell.replace(_CAPPED, "cap").replace("same as ", "=") for cell in cells]),
    Step(_TOKENS, "tokens left", lambda cells: [cell.rpartition(" ")[2] for cell in cells], lost=_TOKENS),
    without("MAC ratio"),
    without("notes"),
)
"""Steps, in order, where the table does not fit."""


@partial(takes_sweep_flags, flags=LaunchFlags)
def plan(flags: LaunchFlags) -> None:
    """What a sweep would run: tokens per layer, GMACs, time.

    Example: tomebench plan --model vit_b_16 --r 0..24:4

    Loads no weights and measures nothing but a matmul, for the time. It takes every flag of sweep, so that the same
    line can be planned, then run.
    """
    from tomebench.cli.console import open_screen
    from tomebench.models.create import build_model
    from tomebench.runs.budget import BUDGETS
    from tomebench.sweeps.cells import resolve_sweep
    from tomebench.sweeps.enough import too_few
    from tomebench.sweeps.estimate import estimate_sweep
    from tomebench.sweeps.inputs import list_images
    from tomebench.sweeps.resume import choose_folder

    config = flags.load()
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    built = build_model(config.model_spec, meta=True)
    images = list_images(config, built.head) if config.data is not None else None
    cells = resolve_sweep(config, images, built)
    seconds, why = None, ""
    try:
        seconds = estimate_sweep(config, cells)
    except DeviceError as error:  # a sweep for a GPU can be planned on a machine without one
        why = str(error)
    said = []
    if images is not None:
        few = too_few(((c.cell, c.resolved) for c in cells), len(images), config.max_drop, labels=config.labels)
        said = [] if few is None else [few]
    if screen.as_json:
        asked = {"config": config.stored(), "directory": str(choose_folder(config)[0])}
        listed = [{"cell": c.cell.to_json(), "resolved": c.resolved.to_json()} for c in cells]
        screen.object({**asked, "estimated_seconds": seconds, "cells": listed, "remarks": said})
        return
    if seconds is None:
        screen.line(f"how long it takes cannot be judged here: {why}", style="bold")
    else:
        least, most = duration(seconds), duration(seconds + BUDGETS[config.budget].cap_seconds)
        how_long = least if least == most else f"{least} to {most}"
        text = f"about {how_long} on this machine when quiet, by GMACs and a short matmul"
        screen.line(text, style="bold")
    first = cells[0]
    name = first.resolved.timm_id
    if config.checkpoint is not None:  # the tag of a timm id names other weights
        name = f"{name.partition('.')[0]} with {clean(config.checkpoint.name)}"
    screen.line(
        f"{name}, {first.cell.img_size} px, {counted(first.resolved.tokens_in, 'token')}, "
        f"{first.resolved.params_m:.2f} M parameters, method{'s' * (len(config.methods) > 1)} "
        f"{', '.join(config.methods)}, {config.schedule} schedule"
    )
    screen.line()
    headers = [*_apart(config), "r", "GMACs", "MAC ratio", _TOKENS, "notes"]
    lost = screen.table(headers, _lines(cells), left=(*_apart(config), _TOKENS, "notes"), steps=_NARROWER)
    screen.line()
    screen.remarks([("", line) for line in said], said, lost)
    folder = str(choose_folder(config)[0])
    screen.line(f"results would go to {folder}", whole=[folder])


def _apart(config: SweepConfig) -> list[str]:
    """Titles of the columns for what tells cells of one r apart, besides options."""
    both = {"method": config.methods, "schedule": config.schedules}
    return [title for title, values in both.items() if len(values) > 1]


def _lines(cells: Sequence[ResolvedCell]) -> Sequence[Sequence[str]]:
    """A line of the table for each cell; cells with the same tokens in every layer refer to the first of them."""
    first: dict[tuple[str, tuple[int, ...]], int] = {}
    lines = []
    for cell in cells:
        r, resolved = cell.cell.r, cell.resolved
        notes = [_CAPPED] if resolved.clamped else []
        same = first.setdefault((cell.cell.method, resolved.r_layers), r)
        if same != r:
            notes.append(f"same as r={same}")
        lines.append(
            (
                *cell.apart,
                " ".join([str(r), *cell.changed]),
                f"{resolved.gmacs:.2f}",
                f"{resolved.gmacs_unwrapped / resolved.gmacs:.2f}",
                " ".join(map(str, resolved.tokens)),
                ", ".join(notes),
            )
        )
    return lines
