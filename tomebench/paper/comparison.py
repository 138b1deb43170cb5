"""Reported beside measured: the lines of a table, each with its verdicts. Pure functions of what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tomebench.paper.reported import Reported
from tomebench.paper.tables import PARTS
from tomebench.paper.targets import PROP_ATTN, PaperTable, Target, published_gflops
from tomebench.paper.verdicts import (
    EVALUATIONS,
    SCHEDULES,
    Counted,
    Finding,
    Printed,
    judge_gmacs,
    judge_tokens,
    judge_top1,
    paper_tokens,
)
from tomebench.reduction.options import PAPER
from tomebench.schema import Row

_ARCHITECTURES = {
    (192, 12, 16): "ViT-Ti/16",
    (384, 12, 16): "ViT-S/16",
    (768, 12, 16): "ViT-B/16",
    (1024, 24, 16): "ViT-L/16",
    (1280, 32, 14): "ViT-H/14",
}
"""What the paper calls a ViT of some width, depth and patch size."""
_DEFAULTS = {name: str(value) for name, value in dataclasses.asdict(PAPER).items()}
REPORTED_ONLY = "only reported"
NOT_REPORTED = "not among the reported numbers"


@dataclass(frozen=True)
class Shape:
    """What the costs of a model depend on."""

    width: int
    depth: int
    patch: int
    tokens: int  # before the first block, prefix included
    prefix: int
    image_size: str  # as reported rows say it

    @property
    def architecture(self) -> str:
        """The paper's name for it; empty for others."""
        return _ARCHITECTURES.get((self.width, self.depth, self.patch), "")

    @property
    def order(self) -> tuple[int, int]:
        """What runs are sorted by: few tokens first, then small models."""
        return self.tokens, self.width


@dataclass(frozen=True)
class Cost:
    """What one cell comes to, from shapes alone."""

    r: int
    schedule: str
    changed: Mapping[str, str]  # options that are not the paper's own, and proportional attention
    gmacs: float
    mac_ratio: float
    tokens: tuple[int, ...]  # after each block, as planned
    seen: tuple[int, ...]  # the same, as a pass through the merged model leaves them


@dataclass(frozen=True)
class Found:
    """What is known of one run of a table."""

    name: str  # without the table's
    title: str
    shape: Shape
    prop_attn: str  # on or off: of the cells that do not say otherwise
    costs: Sequence[Cost]
    dtype: str = "fp32"
    rows: Mapping[int, Row] = field(default_factory=dict)  # by place in costs
    counted: Mapping[int, Counted] = field(default_factory=dict)  # by place in costs

    def cell(self, r: int, choice: tuple[str, str] | None) -> int | None:
        """Place of the cell of some r in which nothing but the choice differs from the paper's method."""
        wanted = {**_DEFAULTS, PROP_ATTN: self.prop_attn} | dict([choice] if choice and r else [])
        for place, cost in enumerate(self.costs):
            if cost.r == r and {**_DEFAULTS, **cost.changed} == wanted:
                return place
        return None


@dataclass(frozen=True)
class Line:
    """One line of a table: a reported row, a measured cell, or one beside the other."""

    part: str
    label: str  # what a cell chooses; empty for the paper's own method
    r: int | None
    target: Target | None
    cost: Cost | None
    row: Row | None
    findings: tuple[Finding, ...]
    gflops: Printed | None  # what the authors print for this many tokens, be it elsewhere
    note: str  # why there is no verdict about top-1

    @property
    def reported(self) -> Reported | None:
        """The reported row."""
        return None if self.target is None else self.target.reported

    @property
    def differs(self) -> bool:
        """Something is not as reported."""
        return any(finding.verdict == "differs" for finding in self.findings)

    @property
    def open(self) -> bool:
        """Something that was reported cannot be told yet."""
        return any(finding.verdict in ("partial data", "not measured") for finding in self.findings)


def compare(table: PaperTable, runs: Sequence[Found], *, static: bool, only: str | None = None) -> list[Line]:
    """The lines of a table, in its order.

    Args:
        table: what was reported.
        runs: what was found.
        static: only costs and tokens are judged.
        only: leave out what other runs measure.
    """
    by_name = {run.name: run for run in runs}
    targets = [target for target in table.targets() if only is None or target.run == only]
    lines: list[Line] = []
    used: dict[str, set[int]] = {run.name: set() for run in runs}
    trainings = {
        name: len({each.reported.training for each in targets if each.reported.table == name})
        for name in {target.reported.table for target in targets}
    }
    for target in targets:
        run = by_name.get(target.run)
        place = None if run is None or target.reported.r is None else run.cell(target.reported.r, target.choice)
        if run is None or place is None:
            note = target.why_not or "no run measures it"
            lines.append(Line(REPORTED_ONLY, _label(target), target.reported.r, target, None, None, (), None, note))
            continue
        used[run.name].add(place)
        part = PARTS.get(target.reported.table, target.reported.table) if table.by_choice else run.title
        several = target.reported.training.partition(",")[0] if trainings[target.reported.table] > 1 else None
        lines.append(_line(part, run, place, target, static, several if table.by_choice else None))
    rest = [
        _line(NOT_REPORTED if table.by_choice else run.title, run, place, None, static)
        for run in runs
        for place in range(len(run.costs))
        if place not in used[run.name]
    ]
    if table.by_choice:
        return [*lines, *rest]
    own = [line for line in lines if line.part != REPORTED_ONLY] + rest
    ordered = [
        line
        for run in runs
        for line in sorted((each for each in own if each.part == run.title), key=lambda each: each.r or 0)
    ]
    return [*ordered, *(line for line in lines if line.part == REPORTED_ONLY)]


def _line(part: str, run: Found, place: int, target: Target | None, static: bool, several: str | None = None) -> Line:
    cost, row = run.costs[place], run.rows.get(place)
    gflops = (target and target.gflops) or published_gflops(
        run.shape.architecture, run.shape.image_size, cost.r, cost.schedule
    )
    label = _label(target) if several is None else f"{_label(target)}, {several}"
    if target is None:
        own = [run.name] if part == NOT_REPORTED else []
        label = " ".join([*own, *(f"{name}={value}" for name, value in _shown(run, cost))])
    note = "" if target is None else target.why_not
    return Line(
        part, label, cost.r, target, cost, row, tuple(_findings(run, place, target, gflops, static)), gflops, note
    )


def _shown(run: Found, cost: Cost) -> list[tuple[str, str]]:
    return [
        (name, value) for name, value in sorted(cost.changed.items()) if (name, value) != (PROP_ATTN, run.prop_attn)
    ]


def _label(target: Target | None) -> str:
    """What a reported row is about, where that is more than r; an option's name is that of its part."""
    if target is None:
        return ""
    method = target.reported.method
    return "" if method.startswith("ToMe") or target.reported.is_baseline else method.rpartition("=")[2]


def _findings(run: Found, place: int, target: Target | None, gflops: Printed | None, static: bool) -> Iterator[Finding]:
    cost = run.costs[place]
    if gflops is not None:
        yield judge_gmacs(gflops, cost.gmacs)
    if cost.schedule in SCHEDULES:
        expected = paper_tokens(run.shape.tokens, run.shape.prefix, cost.r, cost.schedule, run.shape.depth)
        yield judge_tokens(expected, cost.tokens, cost.seen)
    if target is None or target.acc is None or target.why_not or static:
        return
    images = EVALUATIONS.get(target.reported.metric)
    if images is not None:
        yield judge_top1(target.acc, images, run.counted.get(place), run.dtype)
