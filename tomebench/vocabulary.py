"""Words and limits of the records that are needed without the records: kernels, statuses, numbers of classes."""

from __future__ import annotations

from typing import Literal

MOST_CLASSES = 65_535
"""Most classes of a model: predictions are stored as 16 bits, whose largest value is no class."""
MAX_DROP = 1.0
"""Loss of top-1 against r = 0, in points, up to which a row may be recommended, unless a reader says otherwise."""
WITH_OPTIONS = ("prop_attn", "prefix_only", "preprocessing", "predictors", "rope")
"""Fields of a cell that its key, stores, gate baselines and tables list among the options of its method."""

Route = Literal["auto", "sdpa", "padded", "matmul", "augmented", "efficient", "cudnn", "triton"]
"""How attention is computed; :mod:`tomebench.reduction.attention` says what each one is."""
Rope = Literal["keep", "mean"]
"""Rotation of a merged token in a rotary model: that of the token that stays, or the mean of its group."""
OFF_THE_SHELF, TRAINED = "off-the-shelf", "trained"
"""How the method of a row came to what it decides by: without training, or with weights of its own."""

Status = Literal["ok", "failed", "nonfinite", "oom", "unconverged"]
Scalar = str | int | float | bool
