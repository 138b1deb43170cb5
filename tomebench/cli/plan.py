"""``tomebench plan``: tokens per layer, GMACs and estimated time of a sweep, without measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tomebench.cli.launch import LaunchFlags
from tomebench.cli.options import takes_sweep_flags
from tomebench.errors import DeviceError
from tomebench.report.escape import clean
from tomebench.report.narrow import Step, without
from tomebench.words import counted, duration, noun

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.sweeps.cells import ResolvedCell
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.members import ResolvedMember

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
    from tomebench.runs.budget import BUDGETS
    from tomebench.sweeps.enough import too_few
    from tomebench.sweeps.members import resolve_members
    from tomebench.sweeps.shares import own_share

    members = own_share(flags.load_members())
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    resolved = resolve_members(members)
    seconds, why = _seconds(resolved)
    if len(members) > 1 or members[0].config.share is not None:
        _show_members(screen, resolved, seconds, why)
        return
    from tomebench.sweeps.resume import choose_folder

    (_, config), cells, images, _ = resolved[0]
    said = []
    if config.data is not None:
        few = too_few(((c.cell, c.resolved) for c in cells), images, config.max_drop, labels=config.labels)
        said = [] if few is None else [few]
    if screen.as_json:
        asked = {"config": config.stored(), "directory": str(choose_folder(config)[0])}
        screen.object({**asked, "estimated_seconds": seconds[0], "cells": _listed(cells), "remarks": said})
        return
    _show_time(screen, seconds, BUDGETS[config.budget].cap_seconds, why)
    first = cells[0]
    name = first.resolved.timm_id
    if config.checkpoint is not None:  # the tag of a timm id names other weights
        name = f"{name.partition('.')[0]} with {clean(config.checkpoint.name)}"
    screen.line(
        f"{name}, {first.cell.img_size} px, {counted(first.resolved.tokens_in, 'token')}, "
        f"{first.resolved.params_m:.2f} M parameters, {noun(len(config.methods), 'method')} "
        f"{', '.join(config.methods)}, {config.schedule} schedule"
    )
    screen.line()
    headers = [*_apart(config), "r", "GMACs", "MAC ratio", _TOKENS, "notes"]
    lost = screen.table(headers, _lines(cells), left=(*_apart(config), _TOKENS, "notes"), steps=_NARROWER)
    screen.line()
    screen.remarks([("", line) for line in said], said, lost)
    folder = str(choose_folder(config)[0])
    screen.line(f"results would go to {folder}", whole=[folder])


def _show_members(
    screen: Screen, resolved: Sequence[ResolvedMember], seconds: Sequence[float | None], why: str
) -> None:
    """Print number of cells, time and costs of every run."""
    from tomebench.runs.budget import BUDGETS
    from tomebench.sweeps.resume import choose_parent

    parent = choose_parent([each.member for each in resolved])[0]
    if screen.as_json:
        runs = [
            {
                "config": each.member.config.stored(),
                "directory": str(parent / each.member.name),
                "estimated_seconds": own,
                "cells": _listed(each.cells),
            }
            for each, own in zip(resolved, seconds, strict=True)
        ]
        known = [each for each in seconds if each is not None]
        whole = sum(known) if len(known) == len(seconds) else None
        cells = sum(len(each.cells) for each in resolved)
        screen.object({"directory": str(parent), "estimated_seconds": whole, "cells": cells, "runs": runs})
        return
    first = resolved[0].member.config
    _show_time(screen, seconds, len(resolved) * BUDGETS[first.budget].cap_seconds, why)
    total = counted(sum(len(each.cells) for each in resolved), "cell")
    screen.line(f"{total} in {counted(len(resolved), 'run')}, of which each has rounds and r=0 of its own")
    if resolved[0].reference is not None:
        screen.line(f"between runs: speed-ups over {resolved[0].reference.name}, timed in every round of each")
    screen.line()
    lines = []
    for each, own in zip(resolved, seconds, strict=True):
        costs = [cell.resolved.gmacs for cell in each.cells]
        left = [cell.resolved.tokens[-1] for cell in each.cells]
        lines.append(
            (
                each.member.name,
                str(len(each.cells)),
                str(each.cells[0].resolved.tokens_in),
                f"{min(left)} to {max(left)}",
                f"{min(costs):.2f} to {max(costs):.2f}",
                "-" if own is None else duration(own),
            )
        )
    headers = ("run", "cells", "tokens", "tokens left", "GMACs", "time")
    lost = screen.table(headers, lines, left=("run",), steps=(without("tokens"), without("tokens left")))
    screen.line()
    screen.remarks([], [], lost)
    screen.line(f"results would go to {parent}", whole=[str(parent)])


def _seconds(resolved: Sequence[ResolvedMember]) -> tuple[list[float | None], str]:
    """Estimated seconds of every run; None with a reason where this machine has not its device."""
    from tomebench.measure.device import resolve_device
    from tomebench.sweeps.estimate import estimate_sweep, rate_of

    rates: dict[str, float] = {}
    found: list[float | None] = []
    for (_, config), cells, images, reference in resolved:
        try:
            if config.dtype not in rates:
                rates[config.dtype] = rate_of(config, resolve_device(config.device, config.dtype))
            found.append(estimate_sweep(config, cells, images, reference, rates[config.dtype]))
        except DeviceError as error:  # a sweep for a GPU can be planned on a machine without one
            return [None] * len(resolved), str(error)
    return found, ""


def _show_time(screen: Screen, seconds: Sequence[float | None], cap: float, why: str) -> None:
    """Print how long it takes, up to all the time that the budget allows."""
    known = [each for each in seconds if each is not None]
    if not known:
        screen.line(f"how long it takes cannot be judged here: {why}", style="bold")
        return
    least, most = duration(sum(known)), duration(sum(known) + cap)
    how_long = least if least == most else f"{least} to {most}"
    screen.line(f"about {how_long} on this machine when quiet, by GMACs and a short matmul", style="bold")


def _listed(cells: Sequence[ResolvedCell]) -> list[dict[str, Any]]:
    return [{"cell": cell.cell.to_json(), "resolved": cell.resolved.to_json()} for cell in cells]


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
