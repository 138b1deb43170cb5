"""What a recommended row has to keep, and whether counts of images show that it keeps it.

With a limit of the loss (top-1, or agreement with r = 0) the fastest row within it is wanted; with limits of speed
only, the most accurate row within those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.stats import LEVEL, paired_interval, wilson
from tomebench.words import counted

Shown = Callable[[float, float], bool]
"""Whether a number of lost and of gained images, of a known total, shows that a limit is kept."""


@dataclass(frozen=True)
class Goal:
    """Limits of a recommended row; None: no such limit."""

    max_drop: float | None = None  # points of top-1 against r = 0
    min_agreement: float | None = None  # per cent of the images that keep the class of r = 0
    min_speedup: float | None = None  # over r = 0, or a common reference
    max_latency_ms: float | None = None  # of one pass of a batch

    @property
    def limits_loss(self) -> bool:
        """Whether a loss is limited, so that the fastest row is wanted; otherwise the most accurate is."""
        return self.max_drop is not None or self.min_agreement is not None

    def without_labels(self) -> Goal:
        """The same limits where images have no labels: so much agreement that no more can be lost."""
        if self.max_drop is None:
            return self
        return dataclasses.replace(self, max_drop=None, min_agreement=100 - self.max_drop)

    @property
    def by_agreement(self) -> bool:
        """Whether images count by their agreement with r = 0, not by their labels."""
        return self.min_agreement is not None

    def shown(self, total: int, level: float = LEVEL) -> Shown:
        """Whether counts of ``total`` images show that the limit of the loss is kept: the whole interval is within it.

        Args:
            total: images, >= 1.
            level: of the interval.
        """
        if self.min_agreement is not None:
            least = self.min_agreement / 100
            return lambda lost, gained: wilson(total - lost + gained, total, level=level).lo >= least
        limit = self.largest_loss / 100
        return lambda lost, gained: paired_interval(lost, gained, total, level=level).lo >= -limit

    @property
    def largest_loss(self) -> float:
        """The limit of the loss, in points of top-1 or of agreement."""
        if self.min_agreement is not None:
            return 100 - self.min_agreement
        return MAX_DROP if self.max_drop is None else self.max_drop

    def seems(self, lost: float, gained: float, n: int) -> bool:
        """Whether the loss that was counted is within the limit, however sure that is."""
        return 100 * (lost - gained) / n <= self.largest_loss + 1e-9  # 100 - 99.7 is not 0.3

    def fast_enough(self, row: Row) -> bool:
        """Whether a row keeps the limits of speed by its estimates."""
        latency = latency_ms(row)
        if self.max_latency_ms is not None and (latency is None or latency > self.max_latency_ms):
            return False
        speedup = row.speedup_vs_reference if row.speedup_vs_reference is not None else row.speedup_vs_r0
        return self.min_speedup is None or (speedup is not None and speedup >= self.min_speedup)

    def __str__(self) -> str:
        said = (
            "" if self.max_drop is None else f"a loss of at most {counted(self.max_drop, 'point')}",
            "" if self.min_agreement is None else f"at least {self.min_agreement:g} % agreement",
            "" if self.min_speedup is None else f"at least {self.min_speedup:g}x the speed",
            "" if self.max_latency_ms is None else f"at most {self.max_latency_ms:g} ms a pass",
        )
        return " and ".join(filter(None, said))


def gain_of(row: Row) -> float:
    """What a row gains over r = 0 of its model: its speed-up, or the MAC ratio where it was not timed."""
    return row.mac_ratio if row.speedup_vs_r0 is None else row.speedup_vs_r0


def latency_ms(row: Row) -> float | None:
    """Time of one pass of a batch, in ms; None where it was not timed."""
    return None if row.img_per_s is None else 1e3 * row.batch_size / row.img_per_s
