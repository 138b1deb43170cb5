"""What a comparison calls rows: their setting, their model, their options; and which rows are r = 0."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tomebench.runs.row import Row
from tomebench.schema import split_head

_CONDITIONS = ("prefix_only=", "preprocessing=")
"""Options that are no method's own: r = 0 has them too, and they change its speed or its top-1."""
_SEED = re.compile(r"(?:^| )seed=\S+")


def is_plain(row: Row) -> bool:
    """Whether a row is r = 0 of its model and input."""
    return row.r == 0 and not row.schedule.startswith("list:")


def model_of(row: Row) -> tuple[str, str, int]:
    """Model, weights and input of a row.

    Published weights are those of the model's name: their digest is of tensors, and so of another position embedding at
    every input size.
    """
    published = "(pretrained)"
    weights, head = split_head(row.weights)
    return (row.model, (published if weights.endswith(published) else weights) + head, row.img_size)


def options_of(row: Row) -> str:
    """Options of a row but the seed."""
    return _SEED.sub("", row.options).strip()


def conditions(row: Row) -> str:
    """Options of a row that are no method's own."""
    return " ".join(option for option in row.options.split() if option.startswith(_CONDITIONS))


def setting(row: Row) -> str:
    """Text of what rows must share to be compared: ``cpu, fp32, batch 64``."""
    parts = (
        row.device,
        row.dtype,
        f"batch {row.batch_size}",
        "training" if row.mode == "train" else "",
        "compiled" if row.compile else "",
        "CUDA graphs" if row.cuda_graphs else "",
        f"attention {row.attention}" if row.attention != "auto" else "",
        conditions(row),
    )
    return ", ".join(filter(None, parts))


def place(row: Row) -> str:
    """Text of r = 0 of a row's model and input."""
    return f"r=0 of {model_names([row])[model_of(row)[:2]]} at {row.img_size} px"


def model_names(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """A name for each model and its weights: without timm's tag where that is enough, else with it, or with both."""
    pairs = {model_of(row)[:2] for row in rows}

    def names(model: str, weights: str) -> tuple[str, str, str]:
        whole = model.removeprefix("python:")
        return (whole.partition(".")[0], whole, f"{whole} {weights[:14]}")

    shared = Counter(name for pair in pairs for name in {*names(*pair)})
    return {pair: next((name for name in names(*pair) if shared[name] == 1), " ".join(pair)) for pair in pairs}
