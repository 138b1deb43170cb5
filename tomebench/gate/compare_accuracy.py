"""Compare the accuracy tier: McNemar's exact test on which of the same images are right. Integers only.

Of a run that was stopped before all images (``sweep --until``), the images seen tell what all would: they are the first
ones of a random order. There the question is whether more is lost than the limit allows, by testing by betting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.errors import SpecError
from tomebench.gate.records import Accuracy, CellRecord
from tomebench.gate.verdict import Finding, Verdict
from tomebench.words import counted

LEVEL = 0.02
"""Adjusted two-sided p under which a loss or gain is significant: one in a hundred equal runs is found worse."""


@dataclass(frozen=True)
class MaxDrop:
    """Largest acceptable loss of top-1, in points or images."""

    value: float = 0.5
    unit: str = "points"  # points or images

    @classmethod
    def parse(cls, given: str | float) -> MaxDrop:
        """Parse ``0.5`` (points), also as a number, or ``3images``.

        Raises:
            SpecError: anything else.
        """
        text = f"{given:f}" if isinstance(given, float) else str(given)  # no exponent: 1e-05 becomes 0.000010
        match = re.fullmatch(
            r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(points?|pts?|%)?|([0-9]{1,9})\s*(?:images?|img)", text.strip()
        )
        if match is None or (match[1] and float(match[1]) > 100):
            raise SpecError(f"--max-drop {given!r}: give points of top-1 such as 0.5, or images such as 3images")
        return cls(float(match[3]), "images") if match[3] else cls(float(match[1]), "points")

    def images(self, n: int) -> float:
        """The limit in images out of n."""
        return self.value if self.unit == "images" else self.value * n / 100


def compare_accuracies(
    pairs: Mapping[str, tuple[CellRecord, CellRecord]], limit: MaxDrop, *, raced_cells: int | None = None
) -> list[Finding]:
    """One finding for each cell.

    ``worse`` if images are lost significantly: McNemar's exact test on the images that changed, adjusted for the number
    of cells. ``inconclusive`` if more are lost on balance than the limit allows, but not significantly. ``better`` if
    images are gained significantly. Other images are ``incomparable``.

    Args:
        pairs: the baseline's and the new record of each cell.
        limit: of the loss.
        raced_cells: number of cells of the baseline with answers, where cells of the new run may have been stopped.
    """
    found = {name: (old.accuracy, new.accuracy) for name, (old, new) in pairs.items()}
    stopped = {
        name for name, (old, new) in found.items() if raced_cells is not None and old and new and _first_of(old, new)
    }
    comparable = {
        name: _discordant(old, new)
        for name, (old, new) in found.items()
        if old and new and _same(old, new) and name not in stopped
    }
    adjusted = dict(zip(comparable, stats.holm([stats.mcnemar(*bc) for bc in comparable.values()]), strict=True))
    findings = []
    for name, (old, new) in found.items():
        if old is None or new is None:
            continue
        if name in stopped:
            findings.append(_foreseen(name, old, new, limit, level_of(raced_cells or 1)))
            continue
        if name not in comparable:
            findings.append(Finding("accuracy", name, "incomparable", _difference(old, new)))
            continue
        lost, gained = comparable[name]
        findings.append(_judged(name, old, new, lost, gained, adjusted[name], limit))
    return findings


def level_of(cells: int) -> float:
    """Level at which each cell is judged that was stopped, by the number of cells of the baseline (Bonferroni)."""
    return 1 - LEVEL / max(1, cells)


def differences(old: Accuracy, right: npt.NDArray[np.bool_]) -> stats.Differences:
    """Paired differences of the first images from a baseline, of which those were right; [len(right)]."""
    return right.astype(np.int8) - old.values()[: len(right)].astype(np.int8)


def keeps(found: stats.Differences, total: int, limit: MaxDrop, level: float) -> bool | None:
    """Whether no more is lost of all ``total`` images than the limit allows; None where that is open."""
    allowed = limit.images(total) + 1e-9
    return stats.foreseen(found, total, lambda lost, gained: lost - gained <= allowed, level=level)


def _foreseen(name: str, old: Accuracy, new: Accuracy, limit: MaxDrop, level: float) -> Finding:
    right = new.values()
    found = differences(old, right)
    answer, n, total = keeps(found, old.n_seen, limit, level), new.n_seen, old.n_seen
    verdict: Verdict = "inconclusive" if answer is None else "same" if answer else "worse"
    lost, gained = int((found < 0).sum()), int((found > 0).sum())
    allowed = f"{limit.value:g} points" if limit.unit == "points" else counted(limit.value, "image")
    says = {
        None: f"not known whether more than {allowed} are lost of all {total}: go on with --until all",
        True: f"no more than {allowed} are lost of all {total}",
        False: f"more than {allowed} are lost of all {total}",
    }[answer]
    before, after = int(old.values()[:n].sum()), int(right.sum())
    interval = stats.set_interval(found, total, level=level)
    detail = f"{before} -> {after} of the first {n} right, {lost} lost and {gained} gained; {says}"
    return Finding(
        "accuracy", name, verdict, detail, "top-1", before, after, gained - lost,
        total * interval.lo, total * interval.hi, None,
    )  # fmt: skip


def _first_of(old: Accuracy, new: Accuracy) -> bool:
    """Whether the images of a run that may have been stopped are the first of those of a baseline."""
    return old.digest == new.digest and old.complete and (not new.complete or _same_content(old, new))


def _judged(name: str, old: Accuracy, new: Accuracy, lost: int, gained: int, p: float, limit: MaxDrop) -> Finding:
    n, change = old.n_seen, gained - lost
    allowed = limit.images(n)
    verdict: Verdict = "same"
    if p < LEVEL:
        verdict = "worse" if change < 0 else "better"
    elif -change > allowed + 1e-9:
        verdict = "inconclusive"
    before, after = int(old.values().sum()), int(new.values().sum())
    delta = stats.paired_delta(lost, gained, n)
    detail = (
        f"{before} -> {after} of {n} right ({100 * change / n:+.2f} points), {lost} lost and {gained} gained, "
        f"p = {p:.2g}"
    )
    return Finding(
        "accuracy", name, verdict, detail, "top-1", before, after, change,
        n * delta.interval.lo, n * delta.interval.hi, p,
    )  # fmt: skip


def _same(old: Accuracy, new: Accuracy) -> bool:
    alike = old.digest == new.digest and _same_content(old, new)
    return alike and old.n_seen == new.n_seen and old.complete and new.complete


def _same_content(old: Accuracy, new: Accuracy) -> bool:
    return old.content is None or new.content is None or old.content == new.content  # older snapshots lack it


def _difference(old: Accuracy, new: Accuracy) -> str:
    if not (old.complete and new.complete):
        return f"{'this run' if old.complete else 'the baseline'} has not seen all of its images; finish the run"
    if old.n_seen != new.n_seen:
        return f"{counted(old.n_seen, 'image')} -> {new.n_seen}"
    if old.digest == new.digest:
        return f"the files of {new.dataset} hold other images than they did ({old.content} -> {new.content})"
    return f"other images: {old.dataset} ({old.digest[:12]}) -> {new.dataset} ({new.digest[:12]})"


def _discordant(old: Accuracy, new: Accuracy) -> tuple[int, int]:
    before, after = old.values(), new.values()
    return int((before & ~after).sum()), int((after & ~before).sum())
