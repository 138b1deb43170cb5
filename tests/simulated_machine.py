"""Whole runs on a machine that exists in numbers only: noise that lasts, drift, bias; timed by the real protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from evidence import run_codes

from tomebench.gate.records import Asked, CellRecord, Snapshot, Speed
from tomebench.measure.speed import Variant, time_round
from tomebench.runs.budget import Budget, next_round_needed, share_of
from tomebench.runs.codes import INVALID
from tomebench.runs.rounds import pairs
from tomebench.schema import SENTINEL, UNWRAPPED, Round

STANDARD = Budget("standard", 10, 0.01, 900.0)
BASE = "r0"


@dataclass
class Machine:
    """A clock over simulated work. A step returns what it costs on a quiet machine, in seconds.

    Slow-downs of the whole machine last: ``lasting`` is the standard deviation of a first-order autoregression that
    forgets a tenth from burst to burst. ``white`` is what each burst has of its own. ``heating`` is how much slower the
    machine is at the end of ``seconds`` than at their beginning. ``apart`` is what every process has of its own for
    every variant: a machine of another seed is another process.
    """

    seed: int
    lasting: float = 0.02
    white: float = 0.005
    heating: float = 0.0
    seconds: float = 100.0
    apart: float = 0.0
    min_burst: float = 0.1
    backlog: float | None = None
    time: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._state = self._rng.normal(0, self.lasting)

    def burst(self, step: Callable[[], object], steps: int) -> float:
        memory = 0.9
        self._state = memory * self._state + self._rng.normal(0, self.lasting * (1 - memory**2) ** 0.5)
        slow = 1 + self.heating * min(self.time / self.seconds, 1.0)
        spent = float(step()) * steps * slow * float(np.exp(self._state + self._rng.normal(0, self.white)))  # type: ignore[arg-type]
        self.time += spent
        return spent

    def now(self) -> float:
        return self.time


def simulate(
    machine: Machine,
    costs: Mapping[str, float],
    budget: Budget = STANDARD,
    *,
    bias: float = 1.0,
    max_rounds: int = 10_000,
    session: int = 1,
) -> list[Round]:
    """Rounds until the budget is met.

    Args:
        machine: the clock.
        costs: seconds of a step by name of the cell; BASE is r = 0.
        budget: when to stop.
        bias: the sentinel takes this many times as long as r = 0 although it is the same.
        max_rounds: stop in any case.
        session: number of the process.
    """
    all_costs = {**costs, SENTINEL: costs[BASE] * bias, UNWRAPPED: costs[BASE]}
    if machine.apart:
        own = np.random.default_rng([machine.seed, 1]).normal(0, machine.apart, len(all_costs))
        all_costs = {name: cost * math.exp(off) for (name, cost), off in zip(all_costs.items(), own, strict=True)}
    variants = [Variant(name, lambda cost=cost: cost) for name, cost in all_costs.items()]
    steps = {name: max(1, round(0.1 / cost)) for name, cost in all_costs.items()}
    rounds: list[Round] = []
    while len(rounds) < max_rounds and next_round_needed(rounds, BASE, list(costs), budget, machine.now()):
        rounds.append(time_round(variants, steps, machine, session=session, seed=machine.seed * 10_007 + len(rounds)))
    return rounds


def in_processes(count: int, costs: Mapping[str, float], budget: Budget, **machine: float) -> list[Round]:
    """Rounds of so many fresh processes, each with its share of the budget; ``machine`` as :class:`Machine` has it."""
    seed = int(machine.pop("seed"))
    timed = [
        simulate(Machine(seed * 1000 + number, **machine), costs, share_of(budget, count), session=number)
        for number in range(1, count + 1)
    ]
    return [round_ for each in timed for round_ in each]


def sequential(machine: Machine, costs: Mapping[str, float], bursts: int) -> dict[str, float]:
    """Median seconds of a step, each variant timed all at once, one after another: what tomebench does not do."""
    medians = {}
    for name, cost in costs.items():
        medians[name] = float(np.median([machine.burst(lambda cost=cost: cost, 1) for _ in range(bursts)]))
    return medians


def snapshot(
    rounds: Sequence[Round],
    cells: Sequence[str],
    settings: dict[str, Any] | None = None,
    *,
    between: bool = False,
    judged: bool = True,
) -> Snapshot:
    """What a gate keeps of simulated rounds.

    Args:
        rounds: of one run.
        cells: names of the cells.
        settings: of the run.
        between: each session was a process.
        judged: throw it away where its control fails.
    """
    codes = run_codes(rounds, BASE, between=between) if judged else []
    invalid = tuple(code for code in codes if code in INVALID)
    records = []
    for name in cells:
        timed = pairs(rounds, UNWRAPPED if name == BASE else BASE, name)
        several = tuple(timed.sessions) if len({*timed.sessions}) > 1 else None
        speed = Speed(
            seconds=tuple(timed.other),
            reference=tuple(timed.base),
            processes=several,
            invalid=invalid,
            testbed="x",
        )
        records.append(CellRecord(asked=asked(int(name.removeprefix("r"))), speed=speed))
    return Snapshot(testbed="simulated", settings=settings or {}, cells=tuple(records))


def asked(r: int, **changes: object) -> Asked:
    """A cell of a small model."""
    fields = {
        "model": "vit", "weights": "random:0", "img_size": 224, "method": "tome", "options": "prop_attn=true",
        "schedule": "constant", "r": r, "dtype": "fp32", "attention": "auto", "batch_size": 8, "device": "cpu",
        "compile": False, "cuda_graphs": False, "mode": "infer", "threads": None,
    }  # fmt: skip
    return Asked.model_validate({**fields, **changes})
