"""Derive the result rows of a run from its store: a pure function, so that every table can be rebuilt.

Nothing is measured or stored here: intervals, differences, statuses and warnings are derived anew each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench.reduction.choices import written
from tomebench.runs import testbed
from tomebench.runs.accuracy_columns import Answers, accuracy_columns, pace_columns
from tomebench.runs.budget import Budget, Shortfall, complete_processes
from tomebench.runs.codes import R_CLAMPED, SAME_AS_R, row_codes, run_codes
from tomebench.runs.evidence import RowEvidence, RunEvidence
from tomebench.runs.protocol import protocol, unstated
from tomebench.runs.race_facts import RACE, RaceFacts
from tomebench.runs.rounds import step_seconds
from tomebench.runs.row import COLUMNS, SELECTOR, Row
from tomebench.runs.speed_columns import selector_columns, speed_columns
from tomebench.runs.standing import verdicts
from tomebench.runs.store import Store
from tomebench.runs.targets import asked_processes, budgets, interrupted, processes, shortfalls, timed_rounds
from tomebench.runs.turns import Turn, end_to_end_columns, turns
from tomebench.runs.validity import recompiled
from tomebench.schema import CEILING, MAX_DROP, SENTINEL, UNWRAPPED, Cell, Resolved, Round, Scalar, Status
from tomebench.words import counted

ACCURACY_SESSIONS = "accuracy_sessions"
"""Name of a fact in older stores: sessions that evaluated images; now each chunk has its session."""
LIMIT = "max_drop"
"""Name of the stored fact: loss of top-1 in points up to which the last sweep recommends a row."""
REFERENCE_NAME = "reference"
"""Name of the stored fact: name of the common reference, and the variant that it is."""
OUTPUT_EXCESS = "output_excess"
"""Name of the stored fact: distance of timed logits from the model's, over what rounding explains, by cell key."""


def limit_of(store: Store) -> float:
    """Loss of top-1 in points up to which a run's rows may be recommended; older stores have the default."""
    limit = store.get(LIMIT)  # zero is a limit, too
    return MAX_DROP if limit is None else float(limit)


def build_rows(store: Store, budget: Budget | None = None) -> list[Row]:
    """One row per cell, in order of r.

    Speeds are compared in the rounds that have both variants, top-1 on the images that all other cells were evaluated
    on; a run that was stopped halfway gives the rows of what it has.

    Args:
        store: an open run.
        budget: the one that intervals are judged by; by default that of each cell.

    Raises:
        StorageError: the store is damaged.
    """
    return list(read_cells(store, budget)[0].values())


def read_cells(store: Store, budget: Budget | None = None) -> tuple[dict[str, Row], Answers | None]:
    """The rows of :func:`build_rows` by cell key, and the predictions that they are derived from, each read once.

    Args:
        store: an open run.
        budget: as there.

    Raises:
        StorageError: the store is damaged.
    """
    run = _load(store, budget)
    first_r: dict[tuple[Cell, tuple[int, ...]], int] = {}
    rows = {}
    for cell, resolved in sorted(store.cells(), key=lambda pair: pair[0].r):
        alike = (dataclasses.replace(cell, r=0, schedule=""), resolved.r_layers)
        same_as = first_r.setdefault(alike, cell.r)
        rows[cell.key] = _row(run, cell, resolved, None if same_as == cell.r else same_as)
    return rows, run.answers


@dataclass(frozen=True)
class _Run:
    """Data that the rows of one run share. Mappings are by cell key."""

    settings: Mapping[str, Any]  # of the configuration, without those that the cell and the image list record
    baseline: str | None  # key of the r = 0 cell
    reference: tuple[str, str] | None  # name of the common reference, and the variant that it is
    rounds: Sequence[Round]
    max_mhz: int | None  # of the GPU; None where it is not known, or not the same in all sessions
    shortfalls: Mapping[str, Shortfall]
    statuses: Mapping[str, tuple[Status, str | None]]
    peaks: Mapping[str, int]
    facts: Mapping[str, Mapping[str, float]]  # by name of the fact
    selectors: Mapping[str, Sequence[Sequence[float]]]  # ms of choosing and of the blocks, of each marked pass
    end_to_end: Mapping[str, Sequence[Turn]]
    output_excess: Mapping[str, float]
    budgets: Mapping[str, str]  # name of the budget that each cell is judged by
    processes: Mapping[str, int]  # number of fresh processes in which each cell is to be timed
    interrupted: Collection[str]
    answers: Answers | None  # None without images
    testbed: str
    warnings: tuple[str, ...]  # about the run as a whole


def _load(store: Store, budget: Budget | None) -> _Run:
    keys = [cell.key for cell, _ in store.cells()]
    baseline = next((cell.key for cell, _ in store.cells() if cell.is_baseline), None)
    asked, rounds = budgets(store), timed_rounds(store)
    images, seen, late, paces = store.images(), store.seen(), store.late(), store.paces()
    counted = {pace.session for pace in paces} | set(store.get(ACCURACY_SESSIONS) or ()) | set().union(*late.values())
    sessions = {round_.session for round_ in rounds} | counted
    testbeds = [found for session, found in store.sessions() if session in sessions or not sessions]
    answers = None
    if images is not None:
        pace = pace_columns(paces, dict(store.sessions()))
        race = None if baseline is None else RaceFacts.of(store)
        predictions = {} if race is not None else store.predictions()
        answers = Answers(images, images.labels[seen], predictions, baseline, pace, frozenset(late))
        answers = dataclasses.replace(answers, random=store.get(RACE) is not None)
        if race is not None and baseline is not None:
            answers = _each_on_its_own(answers, store, race, baseline, seen)
    about_run = RunEvidence(
        rounds=rounds,
        baseline=baseline,
        on_gpu=any(cell.device.startswith("cuda") for cell, _ in store.cells()),
        between=processes(store) > 1,
        cells=frozenset(keys),
        answers=answers,
        testbeds=testbeds,
    )
    return _Run(
        settings=unstated(store.config),
        baseline=baseline,
        reference=store.get(REFERENCE_NAME),
        rounds=rounds,
        max_mhz=_max_mhz(testbeds),
        budgets=asked,
        processes=asked_processes(store),
        interrupted=interrupted(store, rounds, asked),
        shortfalls=shortfalls(store, rounds, dict.fromkeys(keys, budget) if budget else asked),
        statuses=store.statuses(),
        peaks=store.peak_memory(),
        facts={column.fact: store.get(column.fact) or {} for column in COLUMNS if column.fact},
        selectors=store.get(SELECTOR) or {},
        end_to_end=turns(store),
        output_excess=store.get(OUTPUT_EXCESS) or {},
        answers=answers,
        testbed="; ".join(dict.fromkeys(testbed.one_line(found) for found in testbeds)),
        warnings=tuple(run_codes(about_run)),
    )


def _each_on_its_own(
    answers: Answers, store: Store, race: RaceFacts, baseline: str, seen: npt.NDArray[np.int64]
) -> Answers:
    """The same answers with every cell on the images that it was evaluated on, until the race stopped it."""
    batch_size = store.cells()[0][0].batch_size
    each = store.predictions_of_each()
    return dataclasses.replace(
        answers,
        predictions={key: found for key, (_, found) in each.items()},
        places={key: np.flatnonzero(np.isin(seen // batch_size, [*chunks])) for key, (chunks, _) in each.items()},
        race=race,
        verdicts=verdicts(store, race, baseline, answers.images.labels),
    )


def _max_mhz(testbeds: Sequence[Mapping[str, Any]]) -> int | None:
    found = {known["gpu_max_mhz"] for known in testbeds if isinstance(known.get("gpu_max_mhz"), int)}
    return found.pop() if len(found) == 1 else None


def _row(run: _Run, cell: Cell, resolved: Resolved, same_as: int | None) -> Row:
    key = cell.key
    mac_ratio = resolved.gmacs_unwrapped / resolved.gmacs
    status, error = _status(run, key)
    peak = run.peaks.get(key)
    codes = row_codes(_evidence(run, cell, resolved, status))
    if same_as is not None:
        codes.insert(codes.count(R_CLAMPED), f"{SAME_AS_R}{same_as}")  # after R_CLAMPED, which is mostly the reason
    return Row(
        **_copied(cell, resolved),
        **_facts(run.facts, key),
        **_speed(run, cell, mac_ratio),
        **(accuracy_columns(run.answers, key) if run.answers else {}),
        options=options_text(cell.written_options),
        protocol=protocol(
            cell, resolved, run.settings, run.budgets[key], run.answers.images.digest if run.answers else None
        ),
        tokens_out=resolved.tokens[-1],
        mac_ratio=mac_ratio,
        peak_mem_mib=None if peak is None else peak / 2**20,
        testbed=run.testbed,
        status=status,
        error=error,
        warnings=(*codes, *run.warnings),
    )


def _copied(cell: Cell, resolved: Resolved) -> dict[str, Any]:
    """Columns copied from a cell or its resolved form under the same name; options are written as text elsewhere."""
    known = vars(cell) | vars(resolved)
    return {column.name: known[column.name] for column in COLUMNS if column.name in known and column.name != "options"}


def _facts(facts: Mapping[str, Mapping[str, float]], key: str) -> dict[str, Any]:
    """Columns that hold a stored fact, for a cell that has it."""
    shown = ((column, facts[column.fact].get(key)) for column in COLUMNS if column.fact)
    return {column.name: value / column.per for column, value in shown if value is not None}


def _evidence(run: _Run, cell: Cell, resolved: Resolved, status: Status) -> RowEvidence:
    key, baseline = cell.key, run.baseline or cell.key
    return RowEvidence(
        cell=cell,
        resolved=resolved,
        rounds=run.rounds,
        key=key,
        beside=_beside(run, key),
        against=SENTINEL if key == run.baseline else baseline,
        max_mhz=run.max_mhz,
        status=status,
        stored=run.statuses.get(key, ("ok", None))[0],
        interrupted=key in run.interrupted,
        output_excess=max(run.output_excess.get(each, 0.0) for each in (key, baseline)),
        answers=run.answers,
    )


def _speed(run: _Run, cell: Cell, mac_ratio: float) -> dict[str, Any]:
    """Speed columns of a row; without absolute speeds if a compilation fell into its bursts."""
    taken, choosing = run.end_to_end.get(cell.key), run.selectors.get(cell.key)
    fields: dict[str, Any] = end_to_end_columns(taken) if taken else {}
    fields |= selector_columns(choosing) if choosing else {}
    if not recompiled(run.rounds, _beside(run, cell.key)):
        name, variant = run.reference or (None, None)
        between = run.processes[cell.key] > 1
        fields |= speed_columns(run.rounds, cell, run.baseline, mac_ratio, reference=variant, between=between)
        if "speedup_vs_reference" in fields:
            fields["reference"] = name
    return fields


def _beside(run: _Run, key: str) -> set[str]:
    """Variants whose times a row's ratios are made of."""
    return {key, CEILING + key, UNWRAPPED, SENTINEL, run.baseline or key, *(run.reference or ())[1:]}


def _status(run: _Run, key: str) -> tuple[Status, str | None]:
    """Status and error text, the gravest first: not measurable, then not finite, then intervals too wide."""
    if key in run.statuses and run.statuses[key][0] != "ok":
        return run.statuses[key]
    if recompiled(run.rounds, _beside(run, key)):
        return (
            "failed",
            "a graph was compiled inside a timed burst, so what was timed is the compiler; no speed is given",
        )
    found = run.answers and run.answers.predictions.get(key)
    if run.answers and found and found.nonfinite:
        return (
            "nonfinite",
            f"NaN or infinite logits on {found.nonfinite} of {counted(len(found.top1), 'image')}",
        )
    if missing := run.shortfalls.get(key):
        return "unconverged", _lacking(run, key, missing)
    return "ok", None


def _lacking(run: _Run, key: str, missing: Shortfall) -> str:
    """How narrow the intervals are so far, and roughly what is missing."""
    done, needed = counted(len(step_seconds(run.rounds, key)), "round"), f"{missing.rounds_needed}"
    if run.processes[key] > 1:
        done = counted(complete_processes(run.rounds, run.baseline or key, key, ceiling=False), "process")
        needed = f"{missing.processes_needed}"
    if missing.half_width is None:
        return f"{done} timed; about {needed} more needed"
    return f"known to ±{100 * missing.half_width:.1f} % after {done}; about {needed} more needed"


def options_text(options: tuple[tuple[str, Scalar], ...]) -> str:
    """Options of a method as text, each value as YAML and the command line write it: ``prop_attn=true``."""
    return " ".join(f"{name}={written(value)}" for name, value in options)
