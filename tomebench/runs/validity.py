"""What makes a measured row doubtful: statistics, as pure functions over the stored rounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.runs.rounds import paired_seconds, pairs, step_seconds
from tomebench.schema import SENTINEL, Burst, Round

NOISY_OVER = 0.10 * math.sqrt(2)
"""IQR / median above which a ratio is noisy: two times that scatter by a tenth each have a ratio that does so."""
DRIFT_OVER = 0.02
"""Relative trend over a run above which it drifts, if it is significant."""
NOT_STEADY_OVER = 0.10
"""Relative trend over a run above which absolute numbers are not steady."""
DRIFT_P = 0.01
"""Mann-Kendall p under which a trend is significant."""
OUTLIER_Z = 3.5
"""Modified z above which a value is an outlier."""
CAPPED_OVER = 0.5
"""Share of the time under the power limit above which a row is a matter of that limit."""
HOST_BOUND_UNDER = 0.10
"""Part of a step that the GPU has left to do when the host has issued the last one, under which it waits for the host.

Not the time of issuing itself: where the GPU sets the pace, the host waits too, once a thousand launches are queued.
"""
BUSY_OVER = 0.10
"""Share of the machine's CPU time above which others disturb."""
AA_LEVEL = 0.99
"""Confidence at which the two bursts of r = 0 must differ. At 95 % one healthy run in twenty would be thrown away."""
AA_TOLERANCE = 0.02
"""Relative difference of the two that is no fault of the harness, however sure it is.

The two lie elsewhere in memory, as any two processes do: a difference as small as that is one between processes.
"""
_TOLD_BETWEEN, _AA_FEW = 4, 0.95
"""Processes from which on their scatter tells at AA_LEVEL whether the two differ, and the level for fewer."""
_POINTS = 200
"""Longer series are reduced to this many medians before a trend is looked for."""


def unwatched(rounds: Sequence[Round]) -> bool:
    """Nothing is known of the clock of a GPU, and so of its energy and who else uses it; False where nothing ran."""
    return bool(rounds) and all(burst.mhz is None for round_ in rounds for burst in round_.bursts)


def power_capped(bursts: Sequence[Burst]) -> bool:
    """The power limit held the clock down for most of the time in most bursts."""
    return mostly((burst.capped or 0) > CAPPED_OVER for burst in bursts)


def host_bound(bursts: Sequence[Burst]) -> bool:
    """The device had less than a tenth of a step left to do when the host had issued the last one; False on a CPU."""
    left = [burst.backlog / burst.step_seconds for burst in bursts if burst.backlog is not None]
    return bool(left) and float(np.median(left)) < HOST_BOUND_UNDER


def mostly(answers: Iterable[bool]) -> bool:
    """More than half of them are yes."""
    answers = list(answers)
    return 2 * sum(answers) > len(answers)


def aa_failed(rounds: Sequence[Round], baseline: str, *, between: bool = False) -> bool:
    """The two bursts of r = 0 differ surely, and by enough to matter.

    The 99 % interval of ln(t[baseline] / t[sentinel]) lies on one side of 0, further than 2 % from it. False under
    six rounds, when there is no interval. Between two or three processes Student's is so wide at that level that hardly
    anything could fail: there it is at 95 % if they differ so, on the same side, within each of them.

    Args:
        rounds: all rounds.
        baseline: key of the r = 0 cell.
        between: each session was a fresh process, and the interval is one between them where there are two.
    """
    base, sentinel, numbers = pairs(rounds, baseline, SENTINEL)
    if not base:
        return False
    logs = stats.log_ratios(base, sentinel)
    medians = stats.process_medians(logs, numbers) if between else ()
    half = stats.mean_half_width(medians, level=AA_LEVEL)
    if half is None:
        return _side(logs) != 0
    if abs(float(np.mean(medians))) - half > AA_TOLERANCE:
        return True
    each = [logs[np.asarray(numbers) == number] for number in {*numbers}]
    sides = {_side(own) for own in each if len(own) >= stats.MIN_VALUES}
    if len(medians) >= _TOLD_BETWEEN or len(sides) > 1 or sides == {0}:
        return False
    return abs(float(np.mean(medians))) > (stats.mean_half_width(medians, level=_AA_FEW) or 0.0)


def _side(logs: npt.NDArray[np.float64]) -> int:
    """On which side of 0 their median surely lies, and over 2 % from it: -1 or 1; 0 where that is not sure."""
    interval = stats.median_interval(logs, level=AA_LEVEL)
    if interval is None:
        return 0
    return int(interval.lo > AA_TOLERANCE) - int(interval.hi < -AA_TOLERANCE)


def drift(rounds: Sequence[Round], name: str) -> float:
    """Relative change of a variant's step time over a session, the largest of all, as a fraction; 0 if not significant.

    The larger of a trend and a step, each if its test finds it at p < 0.01: Theil-Sen slope of ln t over the rounds and
    Mann-Kendall test, which sees a slow drift and no step; :func:`tomebench.stats.largest_step`, the other way round.
    Of several sessions each is tested by itself, at that p over their number, and all of them together: a session of
    six rounds is too short to show by itself what all of them do.
    """
    sessions: dict[int, list[Round]] = {}
    for round_ in rounds:
        sessions.setdefault(round_.session, []).append(round_)
    timed = [step_seconds(some, name) for some in sessions.values()]
    series = [_smoothed(seconds) for seconds in timed if len(seconds) >= stats.MIN_VALUES]
    if not series:
        return 0.0
    trends = [stats.theil_sen(logs) * (len(logs) - 1) for logs in series]
    below = DRIFT_P / len(series)
    found = [float(np.mean(trends))] if stats.mann_kendall(*series) < DRIFT_P else []
    for logs, trend in zip(series, trends, strict=True):
        step = stats.largest_step(logs)
        found += [trend] if stats.mann_kendall(logs) < below else []
        found += [step.shift] if step.p < below else []
    return math.expm1(max(found, key=abs, default=0.0))


def _smoothed(seconds: Sequence[float]) -> list[float]:
    """Logarithms of a series, a long one by medians of neighbours."""
    width = math.ceil(len(seconds) / _POINTS)
    return [float(np.median(np.log(seconds[i : i + width]))) for i in range(0, len(seconds), width)]


def noisy(rounds: Sequence[Round], name: str, against: str) -> bool:
    """The ratio of a variant's step times to those of another in the same rounds has IQR / median over a seventh.

    What a machine does to a whole round is in the interval of img/s and, if it is a trend, in DRIFT; no speed-up minds.
    """
    seconds, others = paired_seconds(rounds, name, against)
    if not seconds:
        return False
    q1, median, q3 = np.quantile(np.divide(seconds, others), [0.25, 0.5, 0.75])
    return bool(q3 - q1 > NOISY_OVER * median)


def slow_first(rounds: Sequence[Round], name: str) -> bool:
    """The first round of some session is slower than its others by a modified z over 3.5, and by over 2 %.

    And not this variant's alone: a cold start slows down most of what its round times, a spike a single burst. A
    session that is too short to say what is usual is held against the others of all.
    """
    sessions: dict[int, list[Round]] = {}
    for round_ in rounds:
        sessions.setdefault(round_.session, []).append(round_)
    others = [round_ for _, *rest in sessions.values() for round_ in rest]
    for first, *rest in sessions.values():
        usual = rest if len(step_seconds(rest, name)) >= stats.MIN_VALUES - 1 else others
        seconds = step_seconds(usual, name)
        if len(seconds) < stats.MIN_VALUES - 1:
            continue
        limit = (1 + DRIFT_OVER) * float(np.median(seconds))  # they may be so even that anything is an outlier
        slow = any(each > limit and stats.modified_z(each, seconds) > OUTLIER_Z for each in step_seconds([first], name))
        if slow and _slow_as_a_whole(first, _usual_seconds(usual)):
            return True
    return False


def _usual_seconds(rounds: Sequence[Round]) -> dict[str, float]:
    """Median step time of every variant."""
    found: dict[str, list[float]] = {}
    for round_ in rounds:
        for burst in round_.bursts:
            found.setdefault(burst.variant, []).append(burst.step_seconds)
    return {variant: float(np.median(seconds)) for variant, seconds in found.items()}


def _slow_as_a_whole(round_: Round, usual: Mapping[str, float]) -> bool:
    slow = [b.step_seconds > (1 + DRIFT_OVER) * usual[b.variant] for b in round_.bursts if b.variant in usual]
    return mostly(slow)


def cpu_busy(rounds: Sequence[Round]) -> bool:
    """Others took over a tenth of the machine's CPU time in most rounds.

    Not the load average, which is of the last minute and counts what we did ourselves.
    """
    shares = [round_.other_cpus for round_ in rounds if round_.other_cpus is not None]
    return bool(shares) and float(np.median(shares)) > BUSY_OVER


def sessions_apart(rounds: Sequence[Round], names: Collection[str]) -> bool:
    """Two of the named variants were never timed in the same session."""
    sessions: dict[str, set[int]] = {}
    for round_ in rounds:
        for burst in round_.bursts:
            if burst.variant in names:
                sessions.setdefault(burst.variant, set()).add(round_.session)
    return any(one.isdisjoint(other) for one, other in itertools.combinations(sessions.values(), 2))


def recompiled(rounds: Sequence[Round], names: Collection[str]) -> bool:
    """Some burst of the named variants has a compilation in it."""
    return any(burst.compiled and burst.variant in names for round_ in rounds for burst in round_.bursts)


def attn_fallback(asked: str, kernel: str) -> bool:
    """PyTorch's fused attention was asked for, and it ran its unfused ``math`` form.

    Args:
        asked: the route.
        kernel: what ran, as :func:`tomebench.reduction.attention.kernel_name` writes it.
    """
    return asked in ("auto", "sdpa", "padded") and "math" in kernel
