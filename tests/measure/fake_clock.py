"""A clock whose time passes only when a step says so: measuring becomes exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable


class FakeClock:
    """Counts bursts and steps; ``step(seconds)`` makes a step that takes that long.

    Costs that are sums of few powers of two keep every assertion exact.
    """

    min_burst = 0.125
    backlog: float | None = None

    def __init__(self) -> None:
        self.time = 0.0
        self.bursts: list[tuple[Callable[[], object], int]] = []

    def burst(self, step: Callable[[], object], steps: int) -> float:
        self.bursts.append((step, steps))
        start = self.time
        for _ in range(steps):
            step()
        return self.time - start

    def now(self) -> float:
        return self.time

    def step(self, seconds: float | Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.time += seconds() if callable(seconds) else seconds

        return run

    def steps_of(self, step: Callable[[], object]) -> list[int]:
        """Steps of each burst of one callable, in order."""
        return [steps for called, steps in self.bursts if called is step]


class BrokenClock(FakeClock):
    """Returns the same reading for every burst, whatever ran."""

    def __init__(self, reading: float) -> None:
        super().__init__()
        self.reading = reading

    def burst(self, step: Callable[[], object], steps: int) -> float:
        return self.reading
