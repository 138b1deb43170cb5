"""What the command line tests share: two rows of a table, and the outcome of a run of the program."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tomebench.runs.row import Row

BASE = Row(
    model="vit_tiny.tag", method="tome", r=0, schedule="constant", weights="random:0", img_size=224,
    options="prop_attn=True", batch_size=2, dtype="fp32", device="cpu", attention="auto", compile=False, mode="infer",
    protocol="0123456789abcdef", r_layers=(0, 0), tokens=(197, 197), tokens_out=197, clamped=False, crop_pct=0.9,
    interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), attn_kernel="sdpa", gmacs=1.25, mac_ratio=1.0,
    gmacs_matching=0.0, params_m=5.72, rounds=12, testbed="2 CPUs", img_per_s=100.0, img_per_s_lo=99.0,
    img_per_s_hi=101.0, speedup_vs_r0=1.0,
)  # fmt: skip
MERGED = replace(
    BASE, r=8, tokens_out=101, gmacs=0.9, mac_ratio=1.39, img_per_s=131.0, img_per_s_lo=129.0, img_per_s_hi=133.0,
    speedup_vs_r0=1.31, speedup_vs_r0_lo=1.29, speedup_vs_r0_hi=1.33,
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a run of the program left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr; fails if there are more or none."""
        assert self.err.count("\n") == 1, f"stderr has not one line: {self.err!r}"
        return self.err.rstrip("\n")
