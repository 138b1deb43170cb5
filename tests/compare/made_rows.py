"""Made-up rows of a comparison: a method's row at an r with the images that it is wrong on, and a field of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from report_rows import make_row

from tomebench.compare.read import Measured

IMAGES = 400


def measured(
    r: int,
    wrong: Iterable[int] | None = (),
    *,
    run: str = "a",
    speed: float | None = None,
    half: float = 0.02,
    n: int = IMAGES,
    **changes: Any,
) -> Measured:
    """A row that takes 0.05 GMACs and 10 tokens less for each r.

    Args:
        r: tokens removed per layer.
        wrong: images that it is wrong on; None: not evaluated.
        run: folder.
        speed: speed-up over r = 0; None: not timed.
        half: half-width of its interval.
        n: images.
        changes: other fields of the row.
    """
    left = {"tokens": (197 - 5 * r, 197 - 10 * r), "tokens_out": 197 - 10 * r}
    fields: dict[str, Any] = {"gmacs": 1.25 - 0.05 * r, **left}
    if speed is not None:
        fields |= {"speedup_vs_r0": speed, "speedup_vs_r0_lo": speed - half, "speedup_vs_r0_hi": speed + half}
    if wrong is None:
        return Measured(make_row(r, **fields | changes), run)
    right = np.ones(n, dtype=np.bool_)
    right[list(wrong)] = False
    fields |= {"top1": 100 * float(right.mean()), "top1_correct": int(right.sum()), "n_seen": n}
    fields |= {"dataset": "digits", "dataset_digest": "feed"}
    return Measured(make_row(r, **fields | changes), run, right, np.arange(n))


def field() -> list[Measured]:
    """One run: r = 0 is right on all of 400 images; ``tome`` and ``greedy`` lose 2, 4 and 12, and 0, 8 and 8."""
    return [
        measured(0, speed=1.0, half=0.0),
        measured(4, range(2), speed=1.2),
        measured(8, range(4), speed=1.5),
        measured(12, range(12), speed=1.9),
        measured(4, (), speed=1.1, method="greedy"),
        measured(8, range(4, 12), speed=1.3, method="greedy"),
        measured(12, range(4, 12), speed=1.4, method="greedy"),
    ]


def seeds(r: int, *wrong: Iterable[int], run: str = "a", **changes: Any) -> list[Measured]:
    """Rows of one method that differ in the seed only, the first with the default."""
    texts = ["prop_attn=True", *(f"prop_attn=True seed={seed}" for seed in range(1, len(wrong)))]
    return [
        measured(r, some, run=run, method="random-merge", options=text, **changes)
        for some, text in zip(wrong, texts, strict=True)
    ]
