"""Compare the accuracy tier: McNemar's exact test on which of the same images are right. Integers only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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


def compare_accuracies(pairs: Mapping[str, tuple[CellRecord, CellRecord]], limit: MaxDrop) -> list[Finding]:
    """One finding for each cell.

    ``worse`` if images are lost significantly: McNemar's exact test on the images that changed, adjusted for the number
    of cells. ``inconclusive`` if more are lost on balance than the limit allows, but not significantly. ``better`` if
    images are gained significantly. Other images are ``incomparable``.
    """
    found = {name: (old.accuracy, new.accuracy) for name, (old, new) in pairs.items()}
    comparable = {name: _discordant(old, new) for name, (old, new) in found.items() if old and new and _same(old, new)}
    adjusted = dict(zip(comparable, stats.holm([stats.mcnemar(*bc) for bc in comparable.values()]), strict=True))
    findings = []
    for name, (old, new) in found.items():
        if old is None or new is None:
            continue
        if name not in comparable:
            findings.append(Finding("accuracy", name, "incomparable", _difference(old, new)))
            continue
        lost, gained = comparable[name]
        findings.append(_judged(name, old, new, lost, gained, adjusted[name], limit))
    return findings


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
    alike = old.content is None or new.content is None or old.content == new.content  # older snapshots lack it
    return old.digest == new.digest and alike and old.n_seen == new.n_seen and old.complete and new.complete


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
