"""Compare the speed tier: per-round speed-ups of two runs, tested against the tolerance; and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tomebench import stats
from tomebench.errors import ConfigError
from tomebench.gate import shifts
from tomebench.gate.records import CellRecord, Speed
from tomebench.gate.shifts import Series
from tomebench.gate.verdict import Finding, Verdict
from tomebench.words import counted

LEVEL = 0.025
"""One-sided error probability of each verdict."""
ALL = "all r"
"""Name of the finding about all speed-ups together, in place of a cell's."""
_RATE = "images per second"
_SPEEDUP = "speed-up over r = 0"
_TOGETHER = "mean of speed-ups"


@dataclass(frozen=True)
class SpeedLimits:
    """Limits up to which two speeds count as the same.

    Raises:
        ConfigError: the tolerance is out of range.
    """

    tolerance: float = 0.05  # slow-down or gain, as a fraction of time
    absolute: bool = False  # compare images per second as well, where the testbeds match

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 10:
            raise ConfigError(f"--tolerance {100 * self.tolerance:g}: give a percentage above 0 and under 1000")


@dataclass(frozen=True)
class _Change:
    """Change of a speed from one run to another."""

    cell: str
    quantity: str
    old: float
    new: float
    shift: stats.Shift  # of the logarithm
    cells: int = 1  # number of cells whose mean it is


def compare_speeds(pairs: Mapping[str, tuple[CellRecord, CellRecord]], limits: SpeedLimits) -> list[Finding]:
    """Findings about all speed-ups together, if there are several, about each cell, and with ``absolute`` about img/s.

    The quantity is the speed-up over r = 0, for r = 0 itself that over the unwrapped model. ``worse`` if the slow-down
    significantly exceeds the tolerance (by :func:`tomebench.gate.shifts.shift`), ``same`` if it is significantly under
    it, ``better`` if a gain significantly exceeds it, else ``inconclusive``. All speed-ups are tested first, as one
    mean: a small slow-down of every r shows there long before it shows in any of them. Then each cell is tested, with
    Holm's correction. Cells whose speed is invalid, or that have under six rounds, are ``inconclusive``.
    """
    findings: list[Finding] = []
    changes: list[_Change] = []
    rates: list[_Change] = []
    speeds: list[tuple[Speed, Speed]] = []
    for name, (old, new) in pairs.items():
        if old.speed is None or new.speed is None:
            continue
        quantity = "speed-up over the unwrapped model" if old.asked.r == 0 else _SPEEDUP
        if (reason := _unusable(old.speed, new.speed)) is not None:
            findings.append(Finding("speed", name, "inconclusive", reason, quantity))
            continue
        changes.append(_change(name, quantity, shifts.speedups(old.speed), shifts.speedups(new.speed)))
        if quantity == _SPEEDUP:
            speeds.append((old.speed, new.speed))
        if limits.absolute:
            if old.speed.testbed != new.speed.testbed:
                findings.append(Finding("speed", name, "incomparable", "another testbed", _RATE))
            elif (reason := shifts.unknown_rate(old.speed, new.speed)) is not None:
                findings.append(Finding("speed", name, "inconclusive", reason, _RATE))
            else:
                rates.append(_change(name, _RATE, shifts.rates(old.speed), shifts.rates(new.speed)))
    tolerance = math.log1p(limits.tolerance)
    together = _judged(_pooled(speeds), tolerance)
    return together + findings + _judged(changes, tolerance) + _judged(rates, tolerance)


def speed_shifts(pairs: Sequence[tuple[CellRecord, CellRecord]]) -> list[stats.Shift]:
    """Shifts of the log speed-ups of cells that have enough valid rounds on both sides."""
    return [shifts.shift(new, old) for old, new in _usable(pairs)]


def speed_scatters(pairs: Sequence[tuple[CellRecord, CellRecord]]) -> list[shifts.Scatter]:
    """Scatter of the log speed-ups of such cells over processes; empty where none was measured in several."""
    return [found for old, new in _usable(pairs) if (found := shifts.scatter(new, old)) is not None]


def _usable(pairs: Sequence[tuple[CellRecord, CellRecord]]) -> list[tuple[Series, Series]]:
    timed = [(old.speed, new.speed) for old, new in pairs if old.speed is not None and new.speed is not None]
    return [(shifts.speedups(old), shifts.speedups(new)) for old, new in timed if _unusable(old, new) is None]


def noise_floor(pairs: Mapping[str, tuple[CellRecord, CellRecord]]) -> float | str:
    """Noise floor: the largest change of a speed-up, as a fraction, that two identical runs cannot rule out.

    It is the outermost end of the 95 % intervals of the change, over all cells.

    Returns:
        That fraction; or a text on why some cell cannot be compared.
    """
    ends = []
    for name, (old, new) in pairs.items():
        if old.speed is None or new.speed is None:
            return f"{name} was not timed"
        if (reason := _unusable(old.speed, new.speed)) is not None:
            return f"{name}: {reason}"
        interval = shifts.shift(shifts.speedups(new.speed), shifts.speedups(old.speed)).interval
        ends += [abs(interval.lo), abs(interval.hi)]
    return math.expm1(max(ends)) if ends else "there are no cells"


def _pooled(speeds: list[tuple[Speed, Speed]]) -> list[_Change]:
    """Mean of the largest group of speed-ups timed in the same rounds on both sides; empty for a single one."""
    groups: dict[tuple[object, ...], list[tuple[Speed, Speed]]] = {}
    for old, new in speeds:
        groups.setdefault((*shifts.rounds_of(old), *shifts.rounds_of(new)), []).append((old, new))
    largest = max(groups.values(), key=len, default=[])
    if len(largest) < 2:
        return []
    before, after = (shifts.together(side) for side in zip(*largest, strict=True))
    return [_change(ALL, _TOGETHER, before, after, cells=len(largest))]


def _judged(changes: list[_Change], tolerance: float) -> list[Finding]:
    worse = stats.holm([change.shift.p_at_least(-tolerance) for change in changes])
    better = stats.holm([change.shift.p_at_most(tolerance) for change in changes])
    return [_finding(*found, tolerance) for found in zip(changes, worse, better, strict=True)]


def _finding(change: _Change, p_worse: float, p_better: float, tolerance: float) -> Finding:
    interval = change.shift.interval
    verdict: Verdict = "inconclusive"
    if p_worse < LEVEL:
        verdict = "worse"
    elif p_better < LEVEL:
        verdict = "better"
    elif interval.lo > -tolerance:
        verdict = "same"
    relative, low, high = (math.expm1(x) for x in (change.shift.value, interval.lo, interval.hi))
    unit, places = (" img/s", ".1f") if change.quantity == _RATE else ("x", ".3f")
    mean = f"mean of {change.cells}: " if change.cells > 1 else ""
    detail = (
        f"{mean}{change.old:{places}}{unit} -> {change.new:{places}}{unit}, {100 * relative:+.1f} % "
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    )
    return Finding(
        "speed", change.cell, verdict, detail, change.quantity, change.old, change.new, relative, low, high, p_worse
    )


def _change(cell: str, quantity: str, old: Series, new: Series, cells: int = 1) -> _Change:
    return _Change(cell, quantity, math.exp(old.value), math.exp(new.value), shifts.shift(new, old), cells)


def _unusable(old: Speed, new: Speed) -> str | None:
    for where, speed in (("the baseline", old), ("this run", new)):
        if speed.invalid:
            return f"{where} is invalid ({', '.join(speed.invalid)}); measure it again on a quiet machine"
        if len(speed.seconds) < stats.MIN_VALUES:
            rounds = counted(len(speed.seconds), "round")
            return f"{where} has {rounds}, {stats.MIN_VALUES} are needed; use a larger --budget"
    return None
