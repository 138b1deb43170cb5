"""Make a run the baseline of later ones: write or update a baseline file without losing a tier of the old one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tomebench.errors import BaselineError, InputError, RunError
from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.compare import Limits, compare
from tomebench.gate.judge import Say, Watch, measured_floor, refreshed, snapshot_of, speed_remarks
from tomebench.gate.records import Snapshot, Tier
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.words import counted


@dataclass(frozen=True)
class Update:
    """What was written into a baseline file."""

    snapshot: Snapshot
    noise_floor: float | None  # measured in this update
    doubts: tuple[str, ...]  # parts that cannot be compared, not even with themselves


def measure_baseline(
    run: Path,
    to: Path | None,
    tiers: tuple[Tier, ...],
    limits: Limits,
    *,
    floor: bool,
    checkpoint: Path | None,
    say: Say,
    watch: Watch,
) -> Update:
    """Write a run as the baseline ``to``, or measure its noise floor, or both.

    Args:
        run: run folder.
        to: file to write; None writes nothing.
        tiers: tiers to write; empty means all that there are.
        limits: a noise floor above the tolerance for speeds is refused.
        floor: measure the run again, for its noise floor.
        checkpoint: file of the weights, if it is not where the settings have it.
        say: called with messages on progress.
        watch: see :func:`tomebench.gate.judge.judge`.

    Raises:
        InputError: nothing to write, or the file at ``to`` is something else or has tiers that would be lost.
        BaselineError, ConfigError, Interrupted: as :func:`tomebench.gate.judge.measured_floor`.
        StorageError: it cannot be written.
    """
    old = None if to is None else _replaced(to)
    snapshot = snapshot_of(
        run, static=to is not None and "static" in (tiers or ("static",)), checkpoint=checkpoint, say=say
    )
    if str(snapshot.settings.get("until", "all")) != "all" and "accuracy" in (tiers or snapshot.tiers()):
        raise RunError("cells of the run were stopped before all images; sweep it on with --until all, then keep it")
    found = None
    if floor:
        where = f" in {counted(PUBLISH_PROCESSES, 'process')}" if snapshot.within_one_process() else ""
        say(f"measuring the same once more{where}")
        found = measured_floor(run, snapshot, limits.speed.tolerance, checkpoint=checkpoint, watch=watch)
    snapshot = snapshot.only(tiers or snapshot.tiers())
    kept = old.noise_floor if old is not None and found is None and _measured_alike(old, snapshot) else found
    snapshot = snapshot.model_copy(update={"noise_floor": kept})
    if to is not None:
        _write(to, old, snapshot)
    return Update(snapshot, found, _doubts(snapshot, limits))


def refresh_baseline(to: Path, limits: Limits, *, checkpoint: Path | None, say: Say) -> Update:
    """Compute the static tier of a baseline again with the code at hand; its other tiers stay.

    Raises:
        BaselineError: see :func:`tomebench.gate.judge.refreshed`.
        InputError: the model cannot be loaded or computed.
        StorageError: it cannot be written.
    """
    snapshot = refreshed(to, checkpoint=checkpoint, say=say)
    _write(to, read_baseline(to), snapshot)
    return Update(snapshot, None, _doubts(snapshot, limits))


def _replaced(to: Path) -> Snapshot | None:
    """Snapshot in the file that is about to be replaced; None where there is no file, or an empty one."""
    try:
        if not to.exists() or not to.stat().st_size:
            return None
        return read_baseline(to)
    except BaselineError as error:
        raise InputError(
            f"it would overwrite what is no baseline of this version; remove it first ({error})"
        ) from error


def _write(to: Path, old: Snapshot | None, new: Snapshot) -> None:
    if not new.tiers():
        raise InputError("there is nothing of what was asked for; nothing is written")
    if old is not None and (lost := [tier for tier in old.tiers() if tier not in new.tiers()]):
        raise InputError(f"{to} also has {' and '.join(lost)}, which would be lost; remove it first to start anew")
    write_baseline(to, new)


def _measured_alike(old: Snapshot, new: Snapshot) -> bool:
    """Whether the noise floor of one holds for the other: same settings on the same testbed."""
    return old.settings == new.settings and old.testbeds() == new.testbeds()


def _doubts(snapshot: Snapshot, limits: Limits) -> tuple[str, ...]:
    itself = snapshot.model_copy(update={"noise_floor": None})
    findings = compare(itself, itself, itself.tiers(), limits)
    doubtful = [f for f in findings if f.verdict != "same"]
    told = [f"{f.tier} {f.cell} cannot be compared: {f.detail}" for f in doubtful]
    if any(f.tier == "speed" for f in doubtful):
        told.append("so no later run can pass as it is: measure again with a larger --budget")
    if "speed" in itself.tiers():
        told += speed_remarks(itself, itself, limits)
    return tuple(told)
