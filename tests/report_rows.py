"""Rows for the report tests: a sweep of a 12-block ViT with round numbers, and single rows to bend."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from tomebench.runs.row import COLUMNS, Row

BASE = Row(
    model="vit_tiny.tag", method="tome", r=0, schedule="constant", weights="random:0", img_size=224,
    options="prop_attn=True", batch_size=2, dtype="fp32", device="cpu", attention="auto", compile=False, mode="infer",
    protocol="0123456789abcdef", r_layers=(0, 0), tokens=(197, 197), tokens_out=197, clamped=False, crop_pct=0.9,
    interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), attn_kernel="sdpa", gmacs=1.25, mac_ratio=1.0,
    gmacs_matching=0.0, params_m=5.72, rounds=12, testbed="2 CPUs, 2 threads, torch 2.14.1",
)  # fmt: skip


def make_row(r: int = 0, **changes: Any) -> Row:
    """A row with the given fields changed; a name that no row has raises TypeError."""
    return dataclasses.replace(BASE, r=r, **changes)


def speed(value: float, half: float | None = 0.02, rate: float = 100.0) -> dict[str, Any]:
    """The speed fields of a row that is ``value`` times as fast as 100 img/s, plus or minus ``half``."""
    low, high = (None, None) if half is None else (value - half, value + half)
    return {
        "img_per_s": rate * value, "img_per_s_lo": low and rate * low, "img_per_s_hi": high and rate * high,
        "speedup_vs_r0": value, "speedup_vs_r0_lo": low, "speedup_vs_r0_hi": high,
        "speedup_vs_unwrapped": value * 0.98, "speedup_vs_unwrapped_lo": low and low * 0.98,
        "speedup_vs_unwrapped_hi": high and high * 0.98,
    }  # fmt: skip


def accuracy(correct: int, n: int = 300, base: int = 250, half: float | None = 0.15) -> dict[str, Any]:
    """The accuracy fields of a row with ``correct`` of ``n`` images, ``base`` of them correct at r = 0."""
    delta = 100 * (correct - base) / n
    return {
        "dataset": "digits", "dataset_digest": "feed", "n_seen": n, "top1_correct": correct, "top5_correct": n,
        "top1": 100 * correct / n, "top1_lo": 100 * correct / n - 4, "top1_hi": 100 * correct / n + 4, "ties": 0,
        "top1_lost": max(0, base - correct), "top1_gained": max(0, correct - base),
        "delta_top1": delta, "delta_top1_lo": None if half is None else delta - half,
        "delta_top1_hi": None if half is None else delta + half, "mcnemar_p": 1.0,
    }  # fmt: skip


def make_sweep() -> list[Row]:
    """Five rows as a real sweep gives them: a good one, an unconverged one, a capped one and its duplicate."""
    ratio = {0: 1.0, 4: 1.15, 8: 1.34, 16: 2.0, 20: 2.0}
    correct = {0: 250, 4: 250, 8: 249, 16: 230, 20: 230}
    widths = {0: None, 4: 0.02, 8: 0.02, 16: 0.05, 20: 0.02}
    extra: dict[int, dict[str, Any]] = {
        0: {"top1_correct": 250},
        16: {"status": "unconverged", "clamped": True, "warnings": ("R_CLAMPED",)},
        20: {"clamped": True, "warnings": ("R_CLAMPED", "SAME_AS_R16")},
    }
    rows = []
    for r, mac in ratio.items():
        gained = 1 + 0.9 * (mac - 1)
        fields = speed(gained, widths[r]) | accuracy(correct[r]) | extra.get(r, {})
        fields |= {"mac_ratio": mac, "gmacs": 1.25 / mac, "tokens_out": max(11, 197 - 12 * r), "peak_mem_mib": 60.0 - r}
        fields |= {"efficiency": gained * 0.98 / mac, "r_layers": (r, r), "attn_kernel": "sdpa-bias" if r else "sdpa"}
        rows.append(make_row(r, **fields))
    return rows


TEXT = st.text() | st.sampled_from(["NA", "nan", "True", "0", "'", "=1+1", " -2", "\x1b[31m", 'a,b\n"c"', "\ud800"])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(-(2**63), 2**63 - 1)
ITEMS = {
    "str": TEXT,
    "int": INTS,
    "float": FINITE,
    "bool": st.booleans(),
    "ints": st.lists(INTS, max_size=3).map(tuple),
    "floats": st.lists(FINITE, max_size=3).map(tuple),
    "strs": st.lists(TEXT, max_size=3).map(tuple),
}


def any_row() -> st.SearchStrategy[Row]:
    """Rows with any value in every field, missing included, sensible or not."""
    return st.builds(Row, **{column.name: st.none() | ITEMS[column.dtype] for column in COLUMNS})


def with_ceiling() -> list[Row]:
    """The same sweep with the slicing ceiling timed beside every row but r = 0."""
    return [
        row
        if row.r == 0
        else dataclasses.replace(
            row,
            speedup_ceiling=1.02 * (row.speedup_vs_r0 or 0),
            speedup_ceiling_lo=1.01 * (row.speedup_vs_r0 or 0),
            speedup_ceiling_hi=1.03 * (row.speedup_vs_r0 or 0),
            merge_overhead=2.0 if row.r != 20 else -0.04,
            merge_overhead_lo=1.0,
            merge_overhead_hi=3.0,
        )
        for row in make_sweep()
    ]
