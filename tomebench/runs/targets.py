"""The budget and number of processes of each cell, what it still lacks of them, and whether timing was cut short.

One command or several measure a run, and may ask for different cells and budgets. A cell is judged by the largest
budget that it has reached, or by the last one that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tomebench.runs.budget import BUDGETS, Budget, Shortfall, complete_processes, shortfall
from tomebench.runs.rounds import step_seconds
from tomebench.runs.store import Store
from tomebench.runs.testbed import PROCESS
from tomebench.schema import Round

_BUDGETS = "budgets"
"""Name of the stored fact: budget by cell key, where not all have that of the configuration."""
_PROCESSES = "processes"
"""Name of the stored fact: fresh processes by cell key, where not all have those of the configuration."""
_TIMING = "timing"
"""Name of the stored fact: keys of the cells whose timing has begun and not ended."""


Value = TypeVar("Value")


def budget_rank(name: str) -> int:
    """Rank of a budget among all, the smallest first; -1 of an unknown name."""
    return list(BUDGETS).index(name) if name in BUDGETS else -1


def processes(store: Store) -> int:
    """Number of fresh processes in which a run is to be timed; from 2 on each session is one process."""
    return int(store.config.get("processes", 1))


def asked_processes(store: Store) -> dict[str, int]:
    """Number of fresh processes in which each cell is to be timed, by cell key."""
    usual = processes(store)
    return _of_cells(store, usual, store.get(_PROCESSES))


def keep_processes(store: Store, keys: Collection[str], asked: int) -> None:
    """Ask for a number of fresh processes for some cells, never fewer than before.

    Call it before the configuration of the run changes.

    Args:
        store: of the run, which may not have these cells yet.
        keys: of the cells.
        asked: number of processes.
    """
    before = asked_processes(store)
    after = {**before, **{key: max(asked, before.get(key, 1)) for key in keys}}
    if store.get(_PROCESSES) or len({*after.values()}) > 1:
        store.put(_PROCESSES, after)


def timed_rounds(store: Store) -> list[Round]:
    """All rounds of a run; with several processes, sessions of one process get the number of the first of them."""
    rounds = store.rounds()
    if processes(store) == 1:
        return rounds
    first: dict[str, int] = {}
    process_of = {
        session: first.setdefault(str(found.get(PROCESS, session)), session) for session, found in store.sessions()
    }
    return [replace(round_, session=process_of.get(round_.session, round_.session)) for round_ in rounds]


def budgets(store: Store) -> dict[str, str]:
    """Name of the budget that each cell is judged by, by cell key."""
    usual = str(store.config.get("budget", ""))
    return _of_cells(store, usual, store.get(_BUDGETS))


def _of_cells(store: Store, usual: Value, stored: Mapping[str, Value] | None) -> dict[str, Value]:
    """Value stored for each cell, or the usual one; only of cells that the run has."""
    return {cell.key: (stored or {}).get(cell.key, usual) for cell, _ in store.cells()}


def keep_budgets(store: Store, keys: Collection[str], asked: str) -> None:
    """Ask for a budget for some cells; one that has reached a larger budget keeps that.

    Call it before the configuration of the run changes.

    Args:
        store: of the run, which may not have these cells yet.
        keys: of the cells.
        asked: name of the budget; "none" changes nothing for a cell that is there.
    """
    before = budgets(store)
    rounds = timed_rounds(store)
    reached = {key for key in before if step_seconds(rounds, key)} - {*shortfalls(store, rounds, before)}
    now = {
        key: asked
        for key in keys
        if key not in before
        or (asked != "none" and (key not in reached or budget_rank(asked) > budget_rank(before[key])))
    }
    after = {**before, **now}
    if store.get(_BUDGETS) or len({*after.values(), *([store.config["budget"]] if before else [])}) > 1:
        store.put(_BUDGETS, after)


def shortfalls(store: Store, rounds: Sequence[Round], asked: Mapping[str, str | Budget]) -> dict[str, Shortfall]:
    """What timed cells lack of their budget, by cell key; cells that lack nothing are left out.

    Args:
        store: of the run.
        rounds: all of its rounds.
        asked: budget, or its name, by cell key.
    """
    baseline = next((cell.key for cell, _ in store.cells() if cell.is_baseline), None)
    if baseline is None:
        return {}
    found: dict[str, Shortfall] = {}
    wanted = asked_processes(store)
    for key, name in asked.items():
        budget = BUDGETS.get(name) if isinstance(name, str) else name
        if budget is not None and step_seconds(rounds, key):
            found |= shortfall(rounds, baseline, [key], budget, wanted[key])
    return found


def timing_begins(store: Store, asked: Collection[str], short: Collection[str]) -> None:
    """Record that timing of cells begins, so that their rows say so if it is cut short.

    Args:
        store: of the run.
        asked: keys of the cells that the sweep asks for; records about other cells stay.
        short: keys of those that are to be timed.
    """
    _note(store, (_noted(store) - {*asked}) | {*short})


def timing_ends(store: Store, asked: Collection[str]) -> None:
    """Record that timing of the cells that a sweep asks for has ended."""
    _note(store, _noted(store) - {*asked})


def interrupted(store: Store, rounds: Sequence[Round], asked: Mapping[str, str]) -> set[str]:
    """Keys of the cells whose timing was cut short: its end was never recorded, or it has too few rounds.

    Where several processes are asked for, too few processes instead.

    Args:
        store: of the run.
        rounds: all of its rounds.
        asked: name of the budget by cell key.
    """
    wanted = asked_processes(store)
    baseline = next((cell.key for cell, _ in store.cells() if cell.is_baseline), "")

    def is_short(key: str, least: int) -> bool:
        if wanted[key] > 1:
            return complete_processes(rounds, baseline, key, ceiling=False) < wanted[key]
        return len(step_seconds(rounds, key)) < least

    few = {
        key
        for key, name in asked.items()
        if name in BUDGETS and step_seconds(rounds, key) and is_short(key, BUDGETS[name].min_rounds)
    }
    return few | _noted(store)


def _noted(store: Store) -> set[str]:
    return {*(store.get(_TIMING) or ())}


def _note(store: Store, keys: Collection[str]) -> None:
    if {*keys} != _noted(store):
        store.put(_TIMING, sorted(keys))
