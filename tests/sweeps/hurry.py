"""Real sweeps in a moment: bursts of one step, six rounds, whatever the machine is busy with."""

from __future__ import annotations

import pytest

from tomebench.measure import speed
from tomebench.measure.clock import CpuClock
from tomebench.runs import budget as budgets
from tomebench.sweeps import timing


class ShortClock(CpuClock):
    """A real clock whose bursts are one step."""

    min_burst = 1e-6


def hurry(monkeypatch: pytest.MonkeyPatch, rounds: int = 6) -> None:
    """Let sweeps with the quick budget end after so many rounds, whatever their intervals."""
    monkeypatch.setattr(timing, "clock_for", lambda device: ShortClock())
    monkeypatch.setattr(speed, "WINDOW", 1)
    monkeypatch.setattr(speed, "SETTLED", float("inf"))  # two bursts of one step say nothing about the machine
    monkeypatch.setitem(budgets.BUDGETS, "quick", budgets.Budget("quick", rounds, 1e9, 1.0))  # type: ignore[arg-type]
