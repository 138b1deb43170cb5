"""A clock that charges the same for every step, so that nothing depends on the machine."""

from __future__ import annotations

from collections.abc import Callable


class EvenClock:
    """Runs the steps and charges a millisecond for each: whatever is compared with it is as fast."""

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
