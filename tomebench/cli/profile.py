"""``tomebench profile``: time of a pass by stage (attention, matching, merging, MLP) beside its floor and ceiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.report.narrow import without
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.sweeps.profile import Profile, ProfileReport

_R = "0,8,13"
"""Default values of r."""
_HEADERS = ("part", "ms", "ms/block", "% of pass", "% of block", "floor ms", "x floor", "bound by", "ceiling ms")

_NARROWER = tuple(map(without, ("bound by", "% of block", "ms/block", "x floor", "floor ms", "% of pass")))
"""Columns that are left out, in this order, where the table does not fit."""


@partial(takes_sweep_flags, defaults=False)
def profile(flags: SweepFlags) -> None:
    """Where the time of a pass goes, beside its least.

    Example: tomebench profile --model deit_ti_16 --r 0,8,13

    For every r (0,8,13 if not given) attention, matching, merging, MLP and the rest: in ms, in % of the pass and of
    a block, and next to a floor, which is the larger of MACs and of bytes at the rates measured on this machine. The
    slicing ceiling removes as many tokens without matching or merging: what a part takes longer is the price of
    merging. The parts are compared with the same pass timed without marks.

    It takes the flags of sweep, with the defaults of sweep, except --compile, --cuda-graphs, --processes and --mode
    train, and writes no files. The budget says how many rounds are timed: quick 6, standard 10, publish 20.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import result_of
    from tomebench.sweeps.profile import run_profile

    config = flags.load_with_r(_R)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    with stop_on_signal() as should_stop:
        report = result_of(run_profile(config, should_stop), screen)
    _show(screen, report)


def _show(screen: Screen, report: ProfileReport) -> None:
    """Print a table for every r with a sentence, then warnings and conditions."""
    said = [sentence(profile) for profile in report.profiles]
    warnings = [line for profile in report.profiles for line in _warnings(profile)]
    conditions = _conditions(report)
    if screen.as_json:
        texts = {"sentences": said, "warnings": warnings, "conditions": conditions}
        screen.object({**dataclasses.asdict(report), **texts})
        return
    screen.line()
    for text in said:
        screen.line(text, style="bold")
    lost = []
    for shown in report.profiles:
        screen.line()
        screen.line(f"{_name(shown)}, {counted(shown.tokens[-1], 'token')} left, attention {shown.attn_kernel}")
        lost += screen.table(_HEADERS, _lines(shown), left=("part", "bound by"), steps=_NARROWER)
    screen.line()
    screen.remarks([(line.partition(":")[0], line) for line in warnings], warnings, lost)
    for condition in conditions if screen.details else [_compact(report)]:
        screen.line(condition)


def _lines(profile: Profile) -> list[Sequence[str]]:
    """A line of the table for every stage of the pass, then their sum and the pass timed without marks."""
    lines: list[Sequence[str]] = [
        (
            part.part,
            _number(part.ms),
            _number(part.ms_per_block),
            f"{part.percent_of_pass:.1f}",
            "-" if part.percent_of_block is None else f"{part.percent_of_block:.1f}",
            _number(part.floor_ms),
            "-" if part.over_floor is None else f"{part.over_floor:.1f}",
            part.bound_by or "-",
            _number(part.ceiling_ms),
        )
        for part in profile.parts
        if part.ms > 0
    ]
    in_blocks = sum(part.ms_per_block or 0 for part in profile.parts)
    ceiling = None if profile.ceiling_ms is None else sum(part.ceiling_ms or 0 for part in profile.parts)
    over = f"{profile.parts_ms / profile.floor_ms:.1f}"
    total = (_number(profile.parts_ms), _number(in_blocks), "100.0", "100.0", _number(profile.floor_ms), over, "")
    return [
        *lines,
        ("sum", *total, _number(ceiling)),
        ("plain pass", _number(profile.plain_ms), "", "", "", "", "", "", _number(profile.ceiling_ms)),
    ]


def sentence(profile: Profile) -> str:
    """A profile in a sentence: the cost of merging over the ceiling, and how well the stages add up to the pass."""
    percent = {part.part: part.percent_of_pass for part in profile.parts}
    if profile.ceiling_ms is None or profile.overhead_percent is None:
        what = f"attention takes {percent['attention']:.1f} % of the pass, MLP {percent['mlp']:.1f} %"
    else:
        longer = profile.overhead_percent
        what = (
            f"matching and merging take {percent['matching'] + percent['merging']:.1f} % of the pass; it takes "
            f"{abs(longer):.1f} % {'longer' if longer >= 0 else 'less'} than the slicing ceiling"
        )
    return f"{_name(profile)}: {what}; the parts add up to {profile.parts_percent:.1f} % of the plain pass"


def _warnings(profile: Profile) -> list[str]:
    if profile.adds_up:
        return []
    sums = [f"{profile.parts_percent:.1f} % of the plain pass"]
    if profile.ceiling_parts_percent is not None:
        sums.append(f"{profile.ceiling_parts_percent:.1f} % of the slicing ceiling's")
    return [
        f"{_name(profile)}: the parts add up to {' and '.join(sums)}, more than 5 % off: close other programs, use a "
        "larger --budget, or a larger --batch-size if the marks are what takes time"
    ]


def _conditions(report: ProfileReport) -> list[str]:
    from tomebench.runs.testbed import one_line

    counts = sorted({profile.turns for profile in report.profiles})
    turns = counted(counts[0], "pass") if len(counts) == 1 else f"{counts[0]} to {counted(counts[-1], 'pass')}"
    return [
        f"model: {report.model}, {report.img_size} px, {counted(report.depth, 'block')}, weights {report.weights}, "
        f"method {report.method}",
        f"device: {report.device}, {report.dtype}, batch {report.batch_size}; ms per pass of a batch, "
        f"means over the quieter half of {turns}",
        f"rates for the floors: {report.macs_per_second / 1e9:.4g} GMAC/s, {report.bytes_per_second / 1e9:.3g} GB/s; "
        "a small batch may stay in a cache and beat a floor of bytes",
        f"testbed: {one_line(report.testbed)}",
    ]


def _compact(report: ProfileReport) -> str:
    parts = (report.model, f"{report.img_size} px", report.method, report.device, report.dtype)
    return ", ".join((*parts, f"batch {report.batch_size}", "ms per pass of a batch"))


def _name(profile: Profile) -> str:
    return f"r={profile.r}" if profile.schedule == "constant" else f"r={profile.r} {profile.schedule}"


def _number(ms: float | None) -> str:
    """Three significant digits or more, without an exponent."""
    if ms is None:
        return "-"
    return f"{ms:.0f}" if ms >= 1000 else f"{ms:.1f}" if ms >= 100 else f"{ms:.2f}" if ms >= 10 else f"{ms:.3f}"
