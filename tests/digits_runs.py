"""Settings of small sweeps of the embedded model on its images: nothing is timed."""

from __future__ import annotations

from typing import Any

DIGITS: dict[str, Any] = {
    "model": "digits_vit",
    "data": "digits",
    "batch_size": 16,
    "budget": "none",
    "device": "cpu",
}
