"""Judge a stored run against a baseline file: take snapshots, compare them, and measure again what looks slower."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomebench.errors import BaselineError, ConfigError, InputError, Interrupted, RunError, TomebenchError
from tomebench.gate.baseline_file import REMEDY, read_baseline
from tomebench.gate.compare import Limits, changes, check_limits, compare, confirmed, differing
from tomebench.gate.compare_speed import ALL, noise_floor
from tomebench.gate.deciding import too_small
from tomebench.gate.records import CellRecord, Snapshot, Tier
from tomebench.gate.remeasure import sweep_again
from tomebench.gate.snapshot import run_snapshot, with_static
from tomebench.gate.verdict import Finding
from tomebench.identity import CODE, code_digest
from tomebench.reduction.schedule import lists_every_r
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.origin import MADE
from tomebench.runs.store import Store
from tomebench.runs.testbed import UNAVAILABLE
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config

Say = Callable[[str], None]
Watch = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""Returns a context with a function that says whether to stop."""


@contextmanager
def _unwatched() -> Iterator[Callable[[], bool]]:
    yield lambda: False


@dataclass(frozen=True)
class Judgement:
    """Findings of the gate, with the snapshot they are about."""

    tiers: tuple[Tier, ...]
    findings: tuple[Finding, ...]
    snapshot: Snapshot  # of the run that was judged
    remarks: tuple[str, ...] = ()  # caveats to the findings


def judge(
    run: Path | None,
    baseline: Path,
    tiers: Sequence[Tier],
    limits: Limits,
    *,
    confirm: bool = True,
    checkpoint: Path | None = None,
    say: Say = lambda text: None,
    watch: Watch = _unwatched,
) -> Judgement:
    """Compare a run with a baseline.

    Args:
        run: run folder; None compares only the static tier, computed from the baseline's own settings.
        baseline: baseline file.
        tiers: tiers to compare; empty means all that the baseline has.
        limits: up to which the two count as the same.
        confirm: measure what looks slower again, in a fresh process, before it counts as worse.
        checkpoint: file of the weights, if it is not where the settings have it.
        say: called with messages on progress.
        watch: context during a second measurement; says when to stop.

    Raises:
        BaselineError: the baseline file cannot be used.
        InputError: no such run, or settings or limits that cannot be used.
        StorageError: the run is damaged.
        Interrupted: the second measurement was interrupted.
    """
    old = read_baseline(baseline)
    tiers = tuple(tiers) or old.tiers()
    check_limits(old, tiers, limits)
    if run is None:
        if set(tiers) != {"static"}:
            raise InputError("which run? name its folder, or use --static, the only tier that needs none")
        new = _static_of_baseline(baseline, old, checkpoint, say)
    else:
        new = snapshot_of(run, static="static" in tiers, checkpoint=checkpoint, say=say)
    findings = compare(old, new, tiers, limits)
    other = None if run is None or set(tiers) == {"static"} else _other_code(run)
    remarks = [] if other is None else [other]
    if changed := changes(old, new):
        remarks.append(f"since the baseline: {', '.join(changed)}")
    if "speed" in tiers and new.testbeds() and old.testbeds() != new.testbeds():
        remarks.append(f"the baseline was timed elsewhere, which ratios need not survive: {old.testbed}")
    if "speed" in tiers:
        open_ = any(f.tier == "speed" and f.verdict == "inconclusive" for f in findings)
        remarks += speed_remarks(old, new, limits, undecided=open_)
    slower = list(dict.fromkeys(f.cell for f in findings if f.tier == "speed" and f.verdict == "worse"))
    if slower and confirm and run is not None:
        second: list[Finding] = []
        if other is None:  # other code would measure something else
            say(f"{', '.join(slower)} slower than the baseline: measuring once more")
            # Single processes do not show how processes scatter; as many as ``publish`` asks for do.
            alone = old.within_one_process() and new.within_one_process()
            again = _second_measurement(
                run, slower, new, checkpoint, say, watch, processes=PUBLISH_PROCESSES if alone else None
            )
            second = [] if again is None else compare(old.having(again), again, ["speed"], limits)
        findings = confirmed(findings, second)
    return Judgement(tiers, tuple(findings), new, tuple(remarks))


def speed_remarks(old: Snapshot, new: Snapshot, limits: Limits, *, undecided: bool = True) -> list[str]:
    """Remarks on what two runs cannot show about speeds, and how to measure it: more processes, or a larger budget.

    Args:
        old: the baseline.
        new: snapshot that is judged; the same object where it is to become the baseline.
        limits: up to which the two count as the same.
        undecided: whether a finding is inconclusive, so that the budget is worth a remark.
    """
    remarks = []
    sides = {"this run": new} if old is new else {"the baseline": old, "this run": new}
    if one := [name for name, side in sides.items() if side.within_one_process()]:
        alike = len(one) == len(sides)
        what = "what differs between processes is in no interval" if alike else "taken to vary as the other does"
        remarks.append(f"{' and '.join(one)} timed without --processes: {what}; --processes 5 measures it")
    if undecided and (text := too_small(old, new, limits)) is not None:
        remarks.append(text)
    return remarks


def snapshot_of(run: Path, *, static: bool, checkpoint: Path | None = None, say: Say = lambda text: None) -> Snapshot:
    """Snapshot of a stored run; with ``static``, its static tier as the code at hand computes it.

    Raises:
        InputError: no such run, or its model cannot be loaded.
        StorageError: the run is damaged.
    """
    with Store.read(run) as store:
        snapshot = run_snapshot(store)
    if static:
        snapshot = with_static(snapshot, _static(settings_of(snapshot.settings, checkpoint), say))
    return snapshot


def refreshed(baseline: Path, *, checkpoint: Path | None = None, say: Say = lambda text: None) -> Snapshot:
    """Snapshot of a baseline file whose static tier is computed again from its own settings; other tiers stay.

    Raises:
        BaselineError: the baseline cannot be used, or its settings now resolve to another model, weights or r.
        InputError: the model cannot be loaded.
    """
    old = read_baseline(baseline)
    new = _static_of_baseline(baseline, old, checkpoint, say)
    pairs = zip(old.cells, new.cells, strict=False)
    if len(old.cells) != len(new.cells) or any(differing(a.asked, b.asked, "static") for a, b in pairs):
        what = "is of another model, weights or r than its settings give now"
        raise BaselineError(f"baseline {baseline} {what}; {REMEDY}")
    return with_static(old, new)


def measured_floor(
    run: Path,
    snapshot: Snapshot,
    tolerance: float,
    *,
    checkpoint: Path | None = None,
    watch: Watch = _unwatched,
) -> float:
    """The noise floor of a run: largest difference of speed-ups to a second, identical run, as a fraction.

    A run of a single process is measured again in several, to see how processes scatter.

    Raises:
        BaselineError: the two cannot be compared, since some cell was not timed, is invalid or has too few rounds.
        ConfigError: the noise floor is above ``tolerance``.
        InputError, Interrupted: as :func:`measure_again`.
    """
    processes = PUBLISH_PROCESSES if snapshot.within_one_process() else None
    again = measure_again(run, {cell.asked.r for cell in snapshot.cells}, checkpoint, watch, processes)
    second = {cell.name: cell for cell in again.cells}
    floor = noise_floor({c.name: (c, second.get(c.name, CellRecord(asked=c.asked))) for c in snapshot.cells})
    if isinstance(floor, str):
        raise BaselineError(f"self-check: two runs of the same thing cannot be compared: {floor}")
    if floor > tolerance:
        better = "a larger --budget or a quieter machine"
        if processes is not None:  # compared as one process with five, whatever the budget
            better = f"or measure the run in several: --processes {processes}"
        raise ConfigError(
            f"the noise floor of this run is {100 * floor:.1f} %: --tolerance {100 * tolerance:g} is under it and "
            f"is what runs that are alike may differ by; use a larger one, {better}"
        )
    return floor


def settings_of(settings: Mapping[str, Any], checkpoint: Path | None = None) -> SweepConfig:
    """Configuration from the settings in a snapshot.

    Raises:
        InputError: they are invalid.
    """
    own = {} if checkpoint is None else {"checkpoint": checkpoint}
    given = dict(settings)
    if lists_every_r(str(given.get("schedule", ""))):
        given.pop("r", None)  # has no effect there
    return load_config([], {**given, **own})


def measure_again(
    run: Path, r: set[int], checkpoint: Path | None, watch: Watch, processes: int | None = None
) -> Snapshot:
    """Measure the speeds of some cells of a run again, in a temporary folder and the same number of processes.

    Args:
        run: run folder.
        r: values of r of the cells.
        checkpoint: file of the weights, if it is not where the settings have it.
        watch: context during the measurement; says when to stop.
        processes: number of fresh processes; by default that of the run.

    Raises:
        InputError: it cannot be measured here.
        Interrupted: it was interrupted.
    """
    with Store.read(run) as store:
        settings, batch_size = dict(store.config), int(store.get("batch_size") or 1)
        device = store.cells()[0][0].device
    settings |= {"batch_size": batch_size, "device": device}  # what "auto" was resolved to in the first measurement
    if processes is not None:
        settings["processes"] = processes
    if checkpoint is not None:
        settings["checkpoint"] = str(checkpoint)
    with tempfile.TemporaryDirectory(prefix="tomebench-again-") as folder:
        with watch() as should_stop:
            code = sweep_again(settings, r, Path(folder) / "run", should_stop)
        try:
            with Store.read(Path(folder) / "run") as store:
                snapshot = run_snapshot(store)
        except TomebenchError as error:
            raise RunError(f"{run} cannot be measured once more here: it left no result; use --no-confirm") from error
    if code and all(cell.problem is None for cell in snapshot.cells):
        raise RunError(f"{run} cannot be measured once more here: its result is not complete; use --no-confirm")
    return snapshot


def _second_measurement(
    run: Path,
    cells: Sequence[str],
    first: Snapshot,
    checkpoint: Path | None,
    say: Say,
    watch: Watch,
    *,
    processes: int | None,
) -> Snapshot | None:
    """Measure some cells of a run again; None, with a message, if that fails or the testbed is another one."""
    try:
        r = {cell.asked.r for cell in first.cells if ALL in cells or cell.name in cells}
        again = measure_again(run, r, checkpoint, watch, processes)
    except Interrupted:
        raise
    except (TomebenchError, OSError) as error:
        say(str(error))
        return None
    if not again.testbeds() <= first.testbeds():
        say("that was another testbed than that of the run")
        return None
    return again


def _other_code(run: Path) -> str | None:
    """Text saying that a run was measured by other code than that at hand, or does not record it; else None."""
    here = code_digest()
    with Store.read(run) as store:
        made = (store.get(MADE) or {}).get(CODE)
        commits = sorted({str(found.get("git")) for _, found in store.sessions()} - {UNAVAILABLE, "None"})
    if made == here:
        return None
    there = "older code that does not say which it was" if made is None else f"the code {made}"
    commit = f" (of {', '.join(commits)})" if commits else ""
    return f"this run was measured by {there}{commit}, and the code at hand is {here}: run it again"


def _static_of_baseline(baseline: Path, old: Snapshot, checkpoint: Path | None, say: Say) -> Snapshot:
    try:
        config = settings_of(old.settings, checkpoint)
    except InputError as error:
        raise BaselineError(f"baseline {baseline}: its settings cannot be used: {str(error)[:200]}") from error
    if config.ablate:
        raise BaselineError(
            f"baseline {baseline}: its settings are of an ablation, whose cells the gate cannot tell apart; {REMEDY}"
        )
    return _static(config, say)


def _static(config: SweepConfig, say: Say) -> Snapshot:
    from tomebench.gate.static_tier import static_snapshot

    say(f"computing the static tier of {config.model}")
    return static_snapshot(config)
