"""Estimate the duration of a sweep from its MACs and a short matmul; propose a quicker command on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tomebench.measure.device import DTYPES, arithmetic, resolve_device
from tomebench.measure.estimate import macs_per_second, sweep_seconds
from tomebench.measure.probe import auto_batch_cap
from tomebench.models.spec import PREFIX
from tomebench.reduction.schedule import lists_every_r
from tomebench.rspec import parse_r
from tomebench.runs.budget import BUDGETS
from tomebench.sweeps.cells import ResolvedCell
from tomebench.sweeps.config import SweepConfig, command_line
from tomebench.sweeps.reference import Reference
from tomebench.sweeps.selector import MARKED_PASSES
from tomebench.words import counted, duration

LONG = 600.0
"""Seconds above which a quicker command is proposed on a CPU."""
_FEW_R, _FEW_IMAGES = 4, 500
"""Values of r, and images, of the quicker command."""


def estimate_seconds(
    config: SweepConfig,
    cells: Sequence[ResolvedCell],
    batch_size: int,
    images: int,
    device: torch.device,
    reference: Reference | None = None,
    rate: float | None = None,
) -> float:
    """Seconds that a sweep takes on a quiet machine: its MACs at the rate that a short matmul reaches on the device.

    Args:
        config: of the sweep.
        cells: its cells.
        batch_size: images per pass.
        images: number of images to evaluate.
        device: where it runs.
        reference: timed in every round.
        rate: :func:`rate_of` the sweep, where it is known.
    """
    rate = rate_of(config, device) if rate is None else rate
    return sweep_seconds(
        [cell.resolved.gmacs for cell in cells],
        batch_size,
        images,
        rate,
        BUDGETS[config.budget],
        device.type,
        training=config.mode == "train",
        ceilings=config.ceiling,
        processes=config.process_count,
        marked=MARKED_PASSES if config.selector else 0,
        beside=[] if reference is None or reference.own else [reference.gmacs],
    )


def rate_of(config: SweepConfig, device: torch.device) -> float:
    """Multiply-accumulates per second of a short matmul in the dtype and with the threads of a sweep."""
    with arithmetic(config.dtype, config.threads):
        return macs_per_second(device, DTYPES[config.dtype])


def estimate_sweep(
    config: SweepConfig,
    cells: Sequence[ResolvedCell],
    images: int = 0,
    reference: Reference | None = None,
    rate: float | None = None,
) -> float:
    """:func:`estimate_seconds` of a sweep whose batch size and device may still be "auto".

    Raises:
        InputError: the device is not available.
    """
    device = resolve_device(config.device, config.dtype)
    batch_size = config.batch_size
    if not isinstance(batch_size, int):
        batch_size = auto_batch_cap(device.type, cells[0].resolved.gmacs)
    return estimate_seconds(config, cells, batch_size, images, device, reference, rate)


def in_words(
    config: SweepConfig,
    cells: Sequence[ResolvedCell],
    batch_size: int,
    images: int,
    device: torch.device,
    reference: Reference | None = None,
) -> str:
    """One line with the expected duration, and on a CPU where that is long, a quicker command.

    The upper end adds all the time that the budget allows for further rounds, which a noisy machine uses.
    """
    least = estimate_seconds(config, cells, batch_size, images, device, reference)
    most = least + BUDGETS[config.budget].cap_seconds
    parts = [counted(len(cells), "cell"), f"batch size {batch_size}", f"budget {config.budget}"]
    if config.process_count > 1:
        parts.append(counted(config.process_count, "process"))
    if images:
        parts.insert(1, counted(images, "image"))
    how_long = duration(least) if duration(least) == duration(most) else f"{duration(least)} to {duration(most)}"
    decoding = ", decoding aside" if images else ""
    at_most = "at most " if config.until in ("decided", "recommended") and images else ""  # cells are stopped
    text = f"{at_most}about {how_long}{decoding} ({', '.join(parts)})"
    quicker = quicker_command(config, images)
    if device.type != "cpu" or most <= LONG or quicker is None:
        return text
    return f"{text}; for a first look: {quicker}"


def quicker_command(config: SweepConfig, images: int) -> str | None:
    """A quicker command for a first look: fewer values of r, fewer images, the smallest budget.

    The whole sweep continues in the folder of the quicker one if it has as many images and neither names a folder.

    Args:
        config: of the sweep.
        images: number of images to evaluate.

    Returns:
        None if the sweep is that small already, or if no command can build its model.
    """
    if config.model.startswith(PREFIX):
        return None
    stored = config.stored()
    less = dict(stored)
    values = sorted({0, *parse_r(stored["r"])}) if not lists_every_r(config.schedule) else [0]
    if len(values) > _FEW_R:
        step = (len(values) - 1) / (_FEW_R - 1)
        less["r"] = ",".join(str(values[round(step * number)]) for number in range(_FEW_R))
    if images > _FEW_IMAGES:
        less["limit"] = _FEW_IMAGES
    if config.budget != "none":
        less["budget"] = "quick"
        less.pop("processes", None)
    return None if less == stored else command_line(less)
