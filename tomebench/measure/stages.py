"""Time the stages of a pass (attention, matching, merging, MLP) by marks on a stopwatch within a ReducedViT.

A stage begins where the previous one ends, so the parts add up to the marked pass by construction. Whether the marks
themselves cost time shows in a comparison of that sum with the same model without marks, which runs in turn with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

from torch import Tensor

from tomebench.measure.clock import Stopwatch
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.plan import MergePlan
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT

Part = Literal["attention", "matching", "merging", "mlp", "rest"]
"""Parts of a pass: the stages attend, plan, merge and mlp of the blocks; ``rest`` is embedding and classifier."""
PARTS: tuple[Part, ...] = get_args(Part)
IN_BLOCKS: tuple[Part, ...] = PARTS[:-1]

AGREEMENT = 0.05
"""Fraction by which the sum of the parts may differ from the pass without marks."""
_PLAIN, _TURN = "plain", "turn"  # labels of laps, besides those of parts


def marked(kind: type[ReducedViT], mark: Callable[[Part], None]) -> type[ReducedViT]:
    """Subclass of a model's class whose passes mark the end of every stage: the same modules, the same bits.

    Views and the few microseconds of Python between two stages of a block count for the later one, those before the
    first block for ``rest``. Two stages share the mark between them, since a mark takes a CUDA device a microsecond or
    two. Where a device waits for its host, a part takes as long as the host takes to issue it.

    Args:
        kind: ReducedViT, or a subclass such as SlicedViT.
        mark: called with the part that the time since the last mark belongs to.
    """

    class Marked(kind):  # type: ignore[misc, valid-type]  # a class made from a class
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = super().forward(images)
            mark("rest")
            return logits

        def attend(self, layer: int, tokens: Tokens) -> tuple[Tensor, Heads]:
            if layer == 0:
                mark("rest")
            out: tuple[Tensor, Heads] = super().attend(layer, tokens)
            mark("attention")
            return out

        def plan(self, ctx: Context) -> MergePlan:
            plan: MergePlan = super().plan(ctx)
            mark("matching")
            return plan

        def merge(self, plan: MergePlan, tokens: Tokens) -> Tokens:
            out: Tokens = super().merge(plan, tokens)
            mark("merging")
            return out

        def mlp(self, layer: int, x: Tensor) -> Tensor:
            out: Tensor = super().mlp(layer, x)
            mark("mlp")
            return out

    return Marked


@dataclass(frozen=True)
class PassTimes:
    """Times of one pass, all in one unit."""

    parts: Mapping[Part, float]  # 0 for a stage that did not run
    plain: float  # of the same model without marks

    @property
    def total(self) -> float:
        """Time of the whole marked pass, which is the sum of the parts."""
        return sum(self.parts.values())

    @property
    def in_blocks(self) -> float:
        """Time of all blocks together: every part but ``rest``."""
        return sum(self.parts[part] for part in IN_BLOCKS)

    @property
    def agreement(self) -> float:
        """Sum of the parts over the plain pass; 1 where the marks cost no time."""
        return self.total / self.plain

    @property
    def adds_up(self) -> bool:
        """Whether the sum of the parts is within 5 % of the plain pass."""
        return abs(self.agreement - 1) <= AGREEMENT


@dataclass(frozen=True)
class TimedModel:
    """A model that runs with and without marks. ``name`` distinguishes its labels on a shared stopwatch."""

    name: str
    plain: Callable[[], object]  # one pass
    marked: Callable[[], object]  # one pass of the same model with marks, made by :func:`marker`


def marker(stopwatch: Stopwatch, name: str) -> Callable[[Part], None]:
    """The ``mark`` that :func:`marked` takes, for the model of that name."""
    return lambda part: stopwatch.mark(f"{name} {part}")


def time_burst(
    models: Sequence[TimedModel], steps: int, stopwatch: Stopwatch, rng: random.Random
) -> list[dict[str, PassTimes]]:
    """Run all models in turn, ``steps`` times; returns the times of every pass.

    Models take turns, rather than a burst each: over a burst the machine drifts by more than the few per cent between
    them. The device is synchronised before the first pass and after the last, never in between.

    Args:
        models: models whose marks are on ``stopwatch``.
        steps: >= 1.
        stopwatch: is started and read here.
        rng: gives the order within a turn.

    Returns:
        For every turn, name of the model to its times in seconds.
    """
    runs = [run for model in models for run in (_closed(model, stopwatch), model.marked)]
    rng.shuffle(runs)
    stopwatch.start()
    for _ in range(steps):
        for run in runs:
            run()
        stopwatch.mark(_TURN)
    turns, seconds = [], dict[str, float]()
    for label, lap in stopwatch.laps():
        if label == _TURN:
            turns.append({model.name: _pass_times(model.name, seconds) for model in models})
            seconds = {}
        else:
            seconds[label] = seconds.get(label, 0.0) + lap
    return turns


def _pass_times(name: str, seconds: Mapping[str, float]) -> PassTimes:
    parts = {part: seconds.get(f"{name} {part}", 0.0) for part in PARTS}
    return PassTimes(parts, seconds[f"{name} {_PLAIN}"])


def _closed(model: TimedModel, stopwatch: Stopwatch) -> Callable[[], object]:
    """Plain pass of a model with one mark at its end."""

    def run() -> None:
        model.plain()
        stopwatch.mark(f"{model.name} {_PLAIN}")

    return run


def turn_time(turn: Mapping[str, PassTimes]) -> float:
    """Time of all passes of a turn together."""
    return sum(times.total + times.plain for times in turn.values())


def typical_ms(turns: Sequence[Mapping[str, PassTimes]]) -> dict[str, PassTimes]:
    """Mean times over the quieter half of the turns, in ms.

    Medians of single parts would not add up. Means over the same turns do, and a turn in which something else kept the
    machine busy is left out as a whole.

    Args:
        turns: at least one, as :func:`time_burst` returns them, in seconds.
    """
    quiet = sorted(turns, key=turn_time)[: (len(turns) + 1) // 2]
    return {
        name: PassTimes(
            {part: 1e3 * fmean(turn[name].parts[part] for turn in quiet) for part in PARTS},
            1e3 * fmean(turn[name].plain for turn in quiet),
        )
        for name in turns[0]
    }
