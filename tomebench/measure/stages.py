"""Where the time of a pass goes: the stages of a ReducedViT, marked on a stopwatch.

A stage begins where the one before it ended, so the parts add up to the marked pass by construction. Whether the marks
themselves cost time is seen by comparing that sum with the same model without them, which runs in turn with it.
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
from tomebench.reduction.plan import MergePlan, Tokens
from tomebench.reduction.vit import ReducedViT

Part = Literal["attention", "matching", "merging", "mlp", "rest"]
"""The stages attend, plan, merge and mlp of the blocks; ``rest`` is the embedding and the head."""
PARTS: tuple[Part, ...] = get_args(Part)
IN_BLOCKS: tuple[Part, ...] = PARTS[:-1]

AGREEMENT = 0.05
"""Fraction by which the sum of the parts may differ from the pass without marks."""
_PLAIN, _TURN = "plain", "turn"  # labels of laps, besides those of parts


def marked(kind: type[ReducedViT], mark: Callable[[Part], None]) -> type[ReducedViT]:
    """The same kind of model, whose passes mark the end of every stage: the same modules, the same bits.

    Views and the few microseconds of Python between two stages of a block count for the later one, those before the
    first block for ``rest``. One mark where two stages meet, not two, because on CUDA every mark takes the device a
    microsecond or two. Where a device waits for its host, a part takes as long as the host takes to send it.

    Args:
        kind: ReducedViT, or a subclass such as SlicedViT.
        mark: told what the time since the last mark was spent on.
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
    """What one pass takes, in one unit of time throughout."""

    parts: Mapping[Part, float]  # 0 for a stage that did not run
    plain: float  # the same model without marks

    @property
    def total(self) -> float:
        """The whole of the marked pass, which is the sum of the parts."""
        return sum(self.parts.values())

    @property
    def in_blocks(self) -> float:
        """The sum over everything but ``rest``: all blocks together."""
        return sum(self.parts[part] for part in IN_BLOCKS)

    @property
    def agreement(self) -> float:
        """The sum of the parts over the plain pass; 1 where the marks cost nothing."""
        return self.total / self.plain

    @property
    def adds_up(self) -> bool:
        """The sum of the parts is within 5 % of the plain pass."""
        return abs(self.agreement - 1) <= AGREEMENT


@dataclass(frozen=True)
class TimedModel:
    """A model that can run with and without marks. ``name`` tells its labels on the stopwatch from those of others."""

    name: str
    plain: Callable[[], object]  # one pass
    marked: Callable[[], object]  # one pass of the same model with marks, made by :func:`marker`


def marker(stopwatch: Stopwatch, name: str) -> Callable[[Part], None]:
    """What :func:`marked` needs to mark the passes of the model of that name."""
    return lambda part: stopwatch.mark(f"{name} {part}")


def time_burst(
    models: Sequence[TimedModel], steps: int, stopwatch: Stopwatch, rng: random.Random
) -> list[dict[str, PassTimes]]:
    """Run all models in turn, ``steps`` times, and say what each pass took.

    Turns rather than bursts of one kind, since a few per cent between two of them would drown in what a machine drifts
    over a burst. The device is waited for before the first pass and after the last, and never in between.

    Args:
        models: all of them mark ``stopwatch``.
        steps: >= 1.
        stopwatch: is started and read here.
        rng: gives the order within a turn.

    Returns:
        Model's name to times in seconds, for every turn.
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
    """The plain pass with one mark at its end."""

    def run() -> None:
        model.plain()
        stopwatch.mark(f"{model.name} {_PLAIN}")

    return run


def turn_time(turn: Mapping[str, PassTimes]) -> float:
    """What all passes of a turn take together."""
    return sum(times.total + times.plain for times in turn.values())


def typical_ms(turns: Sequence[Mapping[str, PassTimes]]) -> dict[str, PassTimes]:
    """Means over the quieter half of the turns, in ms.

    Medians of single numbers would not add up. Here all numbers are of the same turns, so they do, and a turn in which
    something else kept the machine busy is left out as a whole.

    Args:
        turns: what :func:`time_burst` returned, in seconds, at least one.
    """
    quiet = sorted(turns, key=turn_time)[: (len(turns) + 1) // 2]
    return {
        name: PassTimes(
            {part: 1e3 * fmean(turn[name].parts[part] for turn in quiet) for part in PARTS},
            1e3 * fmean(turn[name].plain for turn in quiet),
        )
        for name in turns[0]
    }
