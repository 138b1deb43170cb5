"""Real sweeps in a moment: bursts of one step, six rounds, whatever the machine is busy with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tomebench.measure import budget as budgets
from tomebench.measure import speed
from tomebench.measure.clock import CpuClock
from tomebench.sweeps import timing


class ShortClock(CpuClock):
    """A real clock whose bursts are one step."""

    min_burst = 1e-6


class StepClock:
    """Runs the steps and charges a millisecond for each, so that nothing depends on the machine."""

    min_burst = 0.001
    backlog = None

    def __init__(self) -> None:
        self.time = 0.0

    def burst(self, step: Callable[[], object], steps: int) -> float:
        for _ in range(steps):
            step()
        self.time += 0.001 * steps
        return 0.001 * steps

    def now(self) -> float:
        return self.time


def hurry(monkeypatch: pytest.MonkeyPatch, rounds: int = 6) -> None:
    """Let sweeps with the quick budget end after so many rounds, whatever their intervals."""
    monkeypatch.setattr(timing, "clock_for", lambda device: ShortClock())
    monkeypatch.setattr(speed, "WINDOW", 1)
    monkeypatch.setitem(budgets.BUDGETS, "quick", budgets.Budget("quick", rounds, 1e9, 1.0))  # type: ignore[arg-type]
