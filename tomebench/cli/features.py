"""``tomebench features``: how like merged patch features are to unmerged ones, per block and at the end."""

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
    from tomebench.sweeps.features import CellFeatures, FeaturesReport, Likeness

_R = "0,8,13"
"""Default values of r."""
_HEADERS = ("cell", "tokens", "GMACs", "cosine [95%]", "CKA", "pooled cosine")
_NARROWER = tuple(map(without, ("GMACs", "pooled cosine")))


@partial(takes_sweep_flags, defaults=False, seldom=("Timing",))
def features(flags: SweepFlags) -> None:
    """What merging does to the features of a model.

    Example: tomebench features --model hf/my_dino --data my_pictures --r 0,8,13

    For models that are used as encoders: any folder of pictures will do, no labels are needed. Each patch has the
    feature of the token that it was merged into, and is compared with its feature where nothing is merged: the mean
    cosine, and linear CKA over all patches of all pictures; after every block and at the end, after the last norm. A
    patch that was dropped counts as a cosine of 0. Pooled is what a class head reads, or the model's output.

    It takes the flags of sweep, except those about timing, and writes no files; --json prints all numbers.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import result_of
    from tomebench.sweeps.features import run_features

    config = flags.load_with_r(_R)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    with stop_on_signal() as should_stop:
        report = result_of(run_features(config, should_stop), screen)
    _show(screen, report)


def _show(screen: Screen, report: FeaturesReport) -> None:
    """Print a line for every cell, and with ``--details`` a line for every block of each."""
    if screen.as_json:
        screen.object(dataclasses.asdict(report))
        return
    screen.line()
    lost = screen.table(_HEADERS, [_line(cell) for cell in report.cells], left=("cell",), steps=_NARROWER)
    for cell in report.cells if screen.details or len(report.cells) == 1 else ():
        screen.line()
        screen.line(f"{_name(report, cell)}, after every block")
        places = [(each.where, str(each.tokens), _cosine(each), _cka(each)) for each in cell.places]
        screen.table(("after", "tokens", "cosine [95%]", "CKA"), places, left=("after",))
    screen.line()
    screen.remarks([], [], lost)
    screen.line(
        f"{report.model}, weights {report.weights}, {report.img_size} px, {report.device}, {report.dtype}: "
        f"{report.patches} patches of each of {counted(report.n_images, 'image')} of {report.images}"
        f"{f' ({report.note})' if report.note else ''}, against r = 0"
    )


def _line(cell: CellFeatures) -> Sequence[str]:
    end, pooled = cell.end, "-" if cell.pooled_cosine is None else f"{cell.pooled_cosine:.4f}"
    shown = f"{cell.method} {cell.name}" if cell.method not in cell.name.split() else cell.name
    return (shown, str(end.tokens), f"{cell.gmacs:.4g}", _cosine(end), _cka(end), pooled)


def _name(report: FeaturesReport, cell: CellFeatures) -> str:
    return f"{cell.method} {cell.name}" if len({each.method for each in report.cells}) > 1 else cell.name


def _cosine(each: Likeness) -> str:
    interval = "" if each.cosine_lo is None else f" [{each.cosine_lo:.4f}, {each.cosine_hi:.4f}]"
    return f"{each.cosine:.4f}{interval}"


def _cka(each: Likeness) -> str:
    return "-" if each.cka is None else f"{each.cka:.4f}"
