"""Statistical tests for doubtful rows: A/A control, drift, noise, cold start, throttling, load. Pure functions."""

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
"""IQR / median above which a ratio is noisy: that of the ratio of two times with an IQR of 10 % each."""
DRIFT_OVER = 0.02
"""Relative trend over a session above which times drift, if it is significant."""
NOT_STEADY_OVER = 0.10
"""Relative trend over a session above which absolute numbers are not steady."""
DRIFT_P = 0.01
"""Mann-Kendall p under which a trend is significant."""
OUTLIER_Z = 3.5
"""Modified z above which a value is an outlier."""
CAPPED_OVER = 0.5
"""Share of the time under the power limit above which a row's speed is set by that limit."""
HOST_BOUND_UNDER = 0.10
"""Fraction of a step that the GPU has left when the host has issued the last one; under it the host is the limit.

The time of issuing itself does not tell: where the GPU is the limit the host waits too, once a thousand launches are
queued.
"""
BUSY_OVER = 0.10
"""Share of the machine's CPU time taken by other processes above which they disturb the timing."""
AA_LEVEL = 0.99
"""Confidence at which the baseline and the sentinel must differ. At 95 % one healthy run in twenty would fail."""
AA_TOLERANCE = 0.02
"""Relative difference of the baseline and the sentinel that is tolerated at any confidence.

The two lie in different places in memory, as in any two processes: a difference as small as that occurs between
processes.
"""
_TOLD_BETWEEN, _AA_FEW = 4, 0.95
"""Number of processes whose scatter decides at AA_LEVEL whether the two differ, and the level used for fewer."""
_POINTS = 200
"""Number of medians to which longer series are reduced before a trend is tested."""


def unwatched(rounds: Sequence[Round]) -> bool:
    """Nothing is known of a GPU's clock, and so of its energy and its other users; False where nothing ran."""
    return bool(rounds) and all(burst.mhz is None for round_ in rounds for burst in round_.bursts)


def power_capped(bursts: Sequence[Burst]) -> bool:
    """The power limit held the clock down for most of the time in most bursts."""
    return mostly((burst.capped or 0) > CAPPED_OVER for burst in bursts)


def host_bound(bursts: Sequence[Burst]) -> bool:
    """The device had less than a tenth of a step left when the host had issued the last one; False on a CPU."""
    left = [burst.backlog / burst.step_seconds for burst in bursts if burst.backlog is not None]
    return bool(left) and float(np.median(left)) < HOST_BOUND_UNDER


def mostly(answers: Iterable[bool]) -> bool:
    """More than half of the values are true."""
    answers = list(answers)
    return 2 * sum(answers) > len(answers)


def aa_failed(rounds: Sequence[Round], baseline: str, *, between: bool = False) -> bool:
    """A/A control: the two bursts of r = 0 (baseline and sentinel) differ significantly, and by enough to matter.

    The 99 % interval of ln(t[baseline] / t[sentinel]) lies on one side of 0, more than 2 % from it. False under six
    rounds, when there is no interval. Over two or three processes Student's interval at that level is too wide for
    anything to fail: there it is taken at 95 %, and the two must also differ so, on the same side, within each process.

    Args:
        rounds: all rounds.
        baseline: key of the r = 0 cell.
        between: each session was a fresh process, and the interval is over processes where there are two.
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
    """Sign of the median if its 99 % interval lies over 2 % away from 0: -1 or 1; else 0."""
    interval = stats.median_interval(logs, level=AA_LEVEL)
    if interval is None:
        return 0
    return int(interval.lo > AA_TOLERANCE) - int(interval.hi < -AA_TOLERANCE)


def drift(rounds: Sequence[Round], name: str) -> float:
    """Largest relative change of a variant's step time over a session, as a fraction; 0 if not significant.

    The larger of a trend and a step, each if its test finds it at p < 0.01. The Theil-Sen slope of ln t over the rounds
    with the Mann-Kendall test finds a slow drift but no step, :func:`tomebench.stats.largest_step` a step but no slow
    drift. Several sessions are tested one by one, at that p over their number, and all together: a session of six
    rounds is too short to show by itself what all of them do.
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
    """Logarithms of a series; a long one is reduced to the medians of neighbours."""
    width = math.ceil(len(seconds) / _POINTS)
    return [float(np.median(np.log(seconds[i : i + width]))) for i in range(0, len(seconds), width)]


def noisy(rounds: Sequence[Round], name: str, against: str) -> bool:
    """The per-round ratio of a variant's step times to another's has an IQR / median above NOISY_OVER.

    Changes of the machine over whole rounds do not enter: they widen the interval of img/s, or count as DRIFT if they
    are a trend, and leave speed-ups as they are.
    """
    seconds, others = paired_seconds(rounds, name, against)
    if not seconds:
        return False
    q1, median, q3 = np.quantile(np.divide(seconds, others), [0.25, 0.5, 0.75])
    return bool(q3 - q1 > NOISY_OVER * median)


def slow_first(rounds: Sequence[Round], name: str) -> bool:
    """The first round of a session is slower than its others by a modified z over 3.5, and by over 2 %.

    Most other variants must be slower in it too: a cold start slows down most of what its round times, a spike one
    burst. In a session too short to tell what is usual, the rounds of all sessions are the comparison.
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
        limit = (1 + DRIFT_OVER) * float(np.median(seconds))  # rounds may be so even that any difference is an outlier
        slow = any(each > limit and stats.modified_z(each, seconds) > OUTLIER_Z for each in step_seconds([first], name))
        if slow and _slow_as_a_whole(first, _usual_seconds(usual)):
            return True
    return False


def _usual_seconds(rounds: Sequence[Round]) -> dict[str, float]:
    """Median step time of every variant, by name."""
    found: dict[str, list[float]] = {}
    for round_ in rounds:
        for burst in round_.bursts:
            found.setdefault(burst.variant, []).append(burst.step_seconds)
    return {variant: float(np.median(seconds)) for variant, seconds in found.items()}


def _slow_as_a_whole(round_: Round, usual: Mapping[str, float]) -> bool:
    slow = [b.step_seconds > (1 + DRIFT_OVER) * usual[b.variant] for b in round_.bursts if b.variant in usual]
    return mostly(slow)


def cpu_busy(rounds: Sequence[Round]) -> bool:
    """Other processes took over a tenth of the machine's CPU time in most rounds.

    The load average would not do: it covers the last minute, and counts this process.
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
    """A burst of one of the named variants includes a compilation."""
    return any(not round_.recompiled.isdisjoint(names) for round_ in rounds)


def attn_fallback(asked: str, kernel: str) -> bool:
    """PyTorch's fused attention was asked for, but its unfused ``math`` kernel ran.

    Args:
        asked: the attention route of the cell.
        kernel: the kernel that ran, as :func:`tomebench.reduction.attention.kernel_name` writes it.
    """
    return asked in ("auto", "sdpa", "padded") and "math" in kernel
