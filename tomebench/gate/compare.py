"""Compare two snapshots: one finding per tier and cell, better, same, worse or undecided. Pure functions over numbers.

Two cells that differ in a field that matters are ``incomparable``; a cell that one side lacks is ``missing``; numbers
that allow both answers are ``inconclusive``. None of the three passes a gate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tomebench.errors import ConfigError
from tomebench.gate import compare_speed as speed
from tomebench.gate.compare_accuracy import MaxDrop, compare_accuracies
from tomebench.gate.compare_speed import SpeedLimits, compare_speeds
from tomebench.gate.compare_static import compare_static
from tomebench.gate.records import TIERS, Asked, CellRecord, Snapshot, Tier
from tomebench.gate.shifts import Scatter
from tomebench.gate.verdict import Finding, Verdict
from tomebench.identity import MODEL, differences
from tomebench.schema import Cell
from tomebench.stats import Shift

__all__ = ["Finding", "Limits", "Verdict", "changes", "check_limits", "compare", "confirmed", "differing", "exit_code"]

_FROM: Mapping[str, Tier] = {
    **{each.name: each.metadata["matters"] for each in dataclasses.fields(Cell)},
    "threads": "speed",  # of the run
}
"""Tier from which on a field matters."""
_MATTERS: Mapping[Tier, tuple[str, ...]] = {
    tier: tuple(name for name in Asked.model_fields if TIERS.index(_FROM[name]) <= TIERS.index(tier)) for tier in TIERS
}
"""Fields in which two cells must agree to be compared, by tier."""


@dataclass(frozen=True)
class Limits:
    """Limits up to which two runs count as the same."""

    speed: SpeedLimits = field(default_factory=SpeedLimits)
    max_drop: MaxDrop = field(default_factory=MaxDrop)


def compare(old: Snapshot, new: Snapshot, tiers: Sequence[Tier], limits: Limits) -> list[Finding]:
    """One finding for each tier and cell of either side, in that order; speeds begin with one about all cells.

    Args:
        old: the baseline.
        new: snapshot that is judged.
        tiers: tiers to compare. A cell that lacks one of them on either side is ``missing``.
        limits: up to which the two count as the same.

    Raises:
        ConfigError: the tolerance for speeds is under the noise floor of the baseline, or a tier is unknown.
    """
    check_limits(old, tiers, limits)
    before = {cell.name: cell for cell in old.cells}
    after = {cell.name: cell for cell in new.cells}
    names = list(dict.fromkeys([*before, *after]))
    stopped = new.settings.get("until") in ("decided", "recommended") and "until" in old.settings
    evaluated = sum(cell.accuracy is not None for cell in old.cells) if stopped else None
    findings = [finding for tier in tiers for finding in _tier(tier, names, before, after, limits, evaluated)]
    if (found := _other_weights(old, new)) is None:
        return findings
    return [_of_other_weights(finding, found) if finding.tier == "accuracy" else finding for finding in findings]


def changes(old: Snapshot, new: Snapshot) -> list[str]:
    """Differences in the provenance of two snapshots, e.g. ``torch 2.11.0 -> 2.14.1``, other than in the model.

    Such differences do not make them incomparable: what they change is what a gate is asked about. A fact that one side
    lacks, as older snapshots and those without images do, is left out.
    """
    return [str(found) for found in differences(old.made, new.made) if found.name not in MODEL]


def _other_weights(old: Snapshot, new: Snapshot) -> str | None:
    """Text on tensors or layers that differ, whatever their file; None if they are equal or one side lacks them."""
    return next((str(found) for found in differences(old.made, new.made) if found.name in MODEL), None)


def _of_other_weights(finding: Finding, what: str) -> Finding:
    return finding if finding.verdict == "missing" else Finding(finding.tier, finding.cell, "incomparable", what)


def speed_shifts(old: Snapshot, new: Snapshot) -> list[Shift]:
    """Shifts of the log speed-ups of the cells that both sides have and that may be compared."""
    return speed.speed_shifts(_alike(old, new))


def speed_scatters(old: Snapshot, new: Snapshot) -> list[Scatter]:
    """Scatter of the log speed-ups of these cells over processes; empty where none was measured in several."""
    return speed.speed_scatters(_alike(old, new))


def _alike(old: Snapshot, new: Snapshot) -> list[tuple[CellRecord, CellRecord]]:
    before = {cell.name: cell for cell in old.cells}
    pairs = [(before[cell.name], cell) for cell in new.cells if cell.name in before]
    return [pair for pair in pairs if not differing(pair[0].asked, pair[1].asked, "speed")]


def check_limits(old: Snapshot, tiers: Sequence[Tier], limits: Limits) -> None:
    """Raise ConfigError if a tier is unknown, or the tolerance is under the baseline's noise floor."""
    if unknown := [tier for tier in tiers if tier not in TIERS]:
        raise ConfigError(f"tier {unknown[0]!r}: use {', '.join(TIERS)}")
    floor = old.noise_floor
    if "speed" in tiers and floor is not None and limits.speed.tolerance < floor:
        raise ConfigError(
            f"--tolerance {100 * limits.speed.tolerance:g} is under the noise floor of this baseline, "
            f"{100 * floor:.1f} %: runs that are alike may differ so much; use a larger one"
        )


def differing(old: Asked, new: Asked, tier: Tier) -> list[str]:
    """Fields that keep two cells from being compared in a tier, e.g. ``dtype fp32 -> bf16``."""
    pairs = [(field, getattr(old, field), getattr(new, field)) for field in _MATTERS[tier]]
    return [f"{field} {before} -> {after}" for field, before, after in pairs if before != after]


def exit_code(findings: Sequence[Finding]) -> Literal[0, 3, 4]:
    """Exit code: 3 if anything became worse; 4 if something is undecided or nothing was compared; else 0."""
    verdicts = {finding.verdict for finding in findings}
    if "worse" in verdicts:
        return 3
    return 0 if verdicts and verdicts <= {"same", "better"} else 4


def _tier(
    tier: Tier,
    names: Sequence[str],
    before: dict[str, CellRecord],
    after: dict[str, CellRecord],
    limits: Limits,
    evaluated: int | None,
) -> list[Finding]:
    findings: dict[str, Finding] = {}
    pairs: dict[str, tuple[CellRecord, CellRecord]] = {}
    for name in names:
        old, new = before.get(name), after.get(name)
        if (found := _unmeasured(tier, name, old, new)) is not None:
            findings[name] = found
        elif old is not None and new is not None:
            pairs[name] = (old, new)
    results = {
        "static": lambda: compare_static(pairs),
        "accuracy": lambda: compare_accuracies(pairs, limits.max_drop, raced_cells=evaluated),
        "speed": lambda: compare_speeds(pairs, limits.speed),
    }[tier]()
    for finding in results:
        findings.setdefault(finding.cell, finding)
    whole = [finding for finding in results if finding.cell not in names]  # about all cells together
    extra = [finding for finding in results if findings[finding.cell] is not finding]  # on a second quantity of a cell
    return [*whole, *(findings[name] for name in names), *extra]


def _unmeasured(tier: Tier, name: str, old: CellRecord | None, new: CellRecord | None) -> Finding | None:
    """Finding about a cell that cannot be compared in a tier; None for one that can."""

    def finding(verdict: Verdict, detail: str) -> Finding:
        return Finding(tier, name, verdict, detail)

    if old is None:
        return finding("missing", "not in the baseline; --update-baseline adds it")
    if new is None:
        return finding("missing", "in the baseline, but not in this run")
    if changed := differing(old.asked, new.asked, tier):
        return finding("incomparable", ", ".join(changed))
    if getattr(old, tier) is None:
        return finding("missing", f"the baseline has no {tier} of it")
    if tier == "accuracy" and new.nonfinite:
        return finding("worse", "NaN or infinite logits")
    if tier == "static" and new.static_problem is not None:
        return finding("worse", new.static_problem)
    if tier != "static" and new.problem is not None:
        return finding("missing", f"could not be measured: {new.problem}")
    if getattr(new, tier) is None:
        return finding("missing", f"this run has no {tier} of it")
    return None


def confirmed(first: Sequence[Finding], again: Sequence[Finding]) -> list[Finding]:
    """Findings of a first comparison, each ``worse`` speed with the finding of a second run in its place or beside it.

    A second finding of same, better or inconclusive replaces the first; where the second cannot be compared, it stays
    worse.
    """
    second = {(finding.cell, finding.quantity): finding for finding in again if finding.tier == "speed"}
    result = []
    for finding in first:
        if finding.tier != "speed" or finding.verdict != "worse":
            result.append(finding)
            continue
        other = second.get((finding.cell, finding.quantity))
        if other is None or other.verdict in ("missing", "incomparable"):
            result.append(dataclasses.replace(finding, detail=f"{finding.detail}; could not be measured again"))
        elif other.verdict == "worse":
            result.append(dataclasses.replace(finding, detail=f"{finding.detail}; measured again: {other.detail}"))
        else:
            result.append(dataclasses.replace(other, detail=f"{other.detail}; at first: {finding.detail}"))
    return result
