"""Warning codes of made-up rounds, of which no more is known than the test says."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runs.store_samples import make_cell, make_resolved

from tomebench.runs import codes
from tomebench.runs.evidence import RowEvidence, RunEvidence
from tomebench.schema import Round


def run_codes(
    rounds: Sequence[Round], baseline: str | None, *, on_gpu: bool = False, between: bool = False
) -> list[str]:
    """Codes of a run; arguments as :class:`RunEvidence` has them."""
    return codes.run_codes(RunEvidence(rounds, baseline, on_gpu, between))


def row_codes(rounds: Sequence[Round], key: str, beside: Collection[str], max_mhz: int | None) -> list[str]:
    """Codes of a row; arguments as :class:`RowEvidence` has them."""
    return codes.row_codes(RowEvidence(make_cell(8), make_resolved(8), rounds, key, beside, max_mhz=max_mhz))
