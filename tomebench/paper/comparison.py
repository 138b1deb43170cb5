"""Build a comparison table: reported rows beside measured cells, with the verdicts on each line. Pure functions."""

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
from tomebench.reduction.methods.flags import PAPER
from tomebench.runs.row import Row

_ARCHITECTURES = {
    (192, 12, 16): "ViT-Ti/16",
    (384, 12, 16): "ViT-S/16",
    (768, 12, 16): "ViT-B/16",
    (1024, 24, 16): "ViT-L/16",
    (1280, 32, 14): "ViT-H/14",
    (64, 8, 4): "digits_vit",
}
"""Architecture names of reported rows, by width, depth and patch size."""
_DEFAULTS = {name: str(value) for name, value in dataclasses.asdict(PAPER).items()}
REPORTED_ONLY = "only reported"
NOT_REPORTED = "not among the reported numbers"


@dataclass(frozen=True)
class Shape:
    """Shape of a model, as far as its costs depend on it."""

    width: int
    depth: int
    patch: int
    tokens: int  # before the first block, prefix included
    prefix: int
    image_size: str  # as reported rows write it

    @property
    def architecture(self) -> str:
        """Architecture name in reported rows."""
        other = f"a ViT of width {self.width} and {self.depth} blocks"
        return _ARCHITECTURES.get((self.width, self.depth, self.patch), other)

    def norms(self, tokens: Sequence[int]) -> float:
        """1e9 operations of all LayerNorms, five for each channel: two in every block and one at the end.

        Args:
            tokens: after each block.
        """
        normed = self.tokens + sum(tokens[:-1]) + sum(tokens) + tokens[-1]
        return 5 * self.width * normed / 1e9

    @property
    def order(self) -> tuple[int, int]:
        """Sort key of runs: few tokens first, then small models."""
        return self.tokens, self.width


@dataclass(frozen=True)
class Cost:
    """Resolved costs of one cell, from shapes alone."""

    r: int
    schedule: str
    changed: Mapping[str, str]  # options that are not the paper's own, and proportional attention
    gmacs: float
    mac_ratio: float
    tokens: tuple[int, ...]  # after each block, as resolved
    seen: tuple[int, ...]  # after each block, as a pass through the merged model leaves them


@dataclass(frozen=True)
class Found:
    """One run of a table, with its costs and what has been measured."""

    name: str  # of the run, without the table's name
    title: str
    shape: Shape
    prop_attn: str  # on or off, for cells that do not change it
    costs: Sequence[Cost]
    dtype: str = "fp32"
    rows: Mapping[int, Row] = field(default_factory=dict)  # by index into costs
    counted: Mapping[int, Counted] = field(default_factory=dict)  # by index into costs

    def cell(self, r: int, choice: tuple[str, str] | None) -> int | None:
        """Index into ``costs`` of the cell of this r that differs from the paper's method in ``choice`` only."""
        wanted = {**_DEFAULTS, PROP_ATTN: self.prop_attn} | dict([choice] if choice and r else [])
        for place, cost in enumerate(self.costs):
            if cost.r == r and {**_DEFAULTS, **cost.changed} == wanted:
                return place
        return None


@dataclass(frozen=True)
class Line:
    """One line of a comparison table: a reported row, a measured cell, or one beside the other."""

    part: str
    label: str  # option of the cell; empty for the paper's own method
    r: int | None
    target: Target | None
    cost: Cost | None
    row: Row | None
    findings: tuple[Finding, ...]
    gflops: Printed | None  # what the authors print for this many tokens, in any table
    note: str  # why there is no verdict on top-1

    @property
    def reported(self) -> Reported | None:
        """The reported row of the line, if it has one."""
        return None if self.target is None else self.target.reported

    @property
    def differs(self) -> bool:
        """Whether some quantity differs from the reported one."""
        return any(finding.verdict == "differs" for finding in self.findings)

    @property
    def open(self) -> bool:
        """Whether a reported quantity (top-1, else the speed-up) could be measured and has not been."""
        if self.target is None or self.target.why_not:
            return False
        if self.target.acc is not None:
            return not any(
                each.quantity == "top-1" and each.verdict in ("reproduced", "differs") for each in self.findings
            )
        return self.row is None or (self.target.speedup is not None and self.row.speedup_vs_r0 is None)


def compare(table: PaperTable, runs: Sequence[Found], *, static: bool, only: str | None = None) -> list[Line]:
    """Lines of a comparison table, in its order.

    Args:
        table: the reported rows.
        runs: the runs of the table.
        static: compare costs and tokens only.
        only: leave out reported rows of other runs.
    """
    by_name = {run.name: run for run in runs}
    targets = [target for target in table.targets() if only is None or target.run == only]
    lines, alone, used = [], [], set()
    for target in targets:
        run = by_name.get(target.run)
        place = None if run is None or target.reported.r is None else run.cell(target.reported.r, target.choice)
        if run is None or place is None:
            note = target.why_not or "no cell of this run measures it"
            alone.append(Line(REPORTED_ONLY, _label(target), target.reported.r, target, None, None, (), None, note))
        else:
            lines.append(_line(run, place, target, static))
            used.add((run.name, place))
    places = [(run, place) for run in runs for place in range(len(run.costs)) if (run.name, place) not in used]
    rest = [_line(run, place, None, static) for run, place in places]
    if table.by_choice:
        return [*_by_choice(lines), *(_apart(line) for line in rest), *alone]
    both = sorted([*lines, *rest], key=lambda line: line.r or 0)
    return [*(line for run in runs for line in both if line.part == run.title), *alone]


def _by_choice(lines: Sequence[Line]) -> Iterator[Line]:
    """The lines again, each in the part of its reported table; labels name the training where a table has several."""
    trainings: dict[str, set[str]] = {}
    for line in lines:
        if line.reported is not None:
            trainings.setdefault(line.reported.table, set()).add(line.reported.training)
    for line in lines:
        if line.reported is not None:
            table, training = line.reported.table, line.reported.training.partition(",")[0]
            label = f"{line.label}, {training}" if len(trainings[table]) > 1 else line.label
            yield dataclasses.replace(line, part=PARTS.get(table, table), label=label)


def _apart(line: Line) -> Line:
    """Line of a cell without a reported row, labelled with its run."""
    run = line.part.partition(":")[0]
    return dataclasses.replace(line, part=NOT_REPORTED, label=f"{run} {line.label or f'r = {line.r}'}")


def _line(run: Found, place: int, target: Target | None, static: bool) -> Line:
    cost = run.costs[place]
    gflops = None if target is None else target.gflops
    if gflops is None:
        gflops = published_gflops(run.shape.architecture, run.shape.image_size, cost.r, cost.schedule)
    changed = sorted(cost.changed.items() - {(PROP_ATTN, run.prop_attn)})
    label = " ".join(f"{name}={value}" for name, value in changed) if target is None else _label(target)
    found = tuple(_findings(run, place, target, gflops, static))
    note = "" if target is None else target.why_not
    return Line(run.title, label, cost.r, target, cost, run.rows.get(place), found, gflops, note)


def _label(target: Target) -> str:
    """Label of a reported row, where it is about more than r; the name of an option is that of its part."""
    method = target.reported.method
    return "" if method.startswith("ToMe") or target.reported.is_baseline else method.rpartition("=")[2]


def _findings(run: Found, place: int, target: Target | None, gflops: Printed | None, static: bool) -> Iterator[Finding]:
    cost = run.costs[place]
    if target is not None:
        yield from _another_model(run, cost, target.reported)
    if gflops is not None:
        yield judge_gmacs(gflops, cost.gmacs, run.shape.norms(cost.tokens))
    if cost.schedule in SCHEDULES:
        expected = paper_tokens(run.shape.tokens, run.shape.prefix, cost.r, cost.schedule, run.shape.depth)
        yield judge_tokens(expected, cost.tokens, cost.seen)
    if target is None or target.acc is None or target.why_not or static:
        return
    images = EVALUATIONS.get(target.reported.metric)
    if images is not None:
        yield judge_top1(target.acc, images, run.counted.get(place), run.dtype)


def _another_model(run: Found, cost: Cost, row: Reported) -> Iterator[Finding]:
    """Finding that architecture, image size or schedule differ from the reported row's, if they do."""
    here, there = [run.shape.architecture, f"{run.shape.image_size} px"], [row.architecture, f"{row.image_size} px"]
    if cost.r:
        here.append(cost.schedule)
        there.append(row.schedule.partition(" ")[0])
    if here != there:
        yield Finding("model", "differs", f"{', '.join(here)}; reported for {', '.join(there)}")
