"""The conditions of a run, without which its table means nothing: in full, and in the one line that a screen has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tomebench.report.escape import clean
from tomebench.report.series import which
from tomebench.schema import Row
from tomebench.words import counted


def conditions(rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines without which the table means nothing: model, method, device, images, testbed. Empty without rows."""
    if not rows:
        return ()
    weights = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", _same(rows, "weights", "weights {}"))
    model = (
        _same(rows, "model"),
        weights,
        _same(rows, "img_size", "{} px"),
        _same(rows, "params_m", "{:.2f} M parameters"),
    )
    method = (_same(rows, "method"), _same(rows, "schedule", "{} schedule"), _same(rows, "options"))
    device = (
        _same(rows, "device"),
        _same(rows, "dtype"),
        _same(rows, "batch_size", "batch {}"),
        _same(rows, "mode"),
        "compiled" if any(row.compile for row in rows) else "",
        "CUDA graphs" if any(row.cuda_graphs for row in rows) else "",
        f"attention {_kernels(rows)}",
    )
    seen = max((row.n_seen for row in rows if row.n_seen is not None), default=None)
    images = ["none, accuracy was not evaluated"]
    if seen is not None:
        data = ", ".join(dict.fromkeys(clean(row.dataset) for row in rows if row.dataset is not None))
        mean, std = (f"{field} " + " ".join(f"{x:.4g}" for x in getattr(rows[0], field)) for field in ("mean", "std"))
        crop = (_same(rows, "crop_pct", "crop {:.3g}"), _same(rows, "interpolation"), mean, std)
        images = [data, f"{seen} seen", *crop]
    testbeds = "; ".join(dict.fromkeys(clean(row.testbed) for row in rows if row.testbed)) or "unavailable"
    parts = {"model": model, "method": method, "device": device, "images": images, "testbed": [testbeds]}
    return tuple(f"{head}: {', '.join(filter(None, texts))}" for head, texts in parts.items())


def compact_conditions(rows: Sequence[Row]) -> str:
    """What a pasted table cannot do without, in a line: model, method, device, images. Empty without rows."""
    if not rows:
        return ""
    seen = max((row.n_seen for row in rows if row.n_seen is not None), default=None)
    data = ", ".join(dict.fromkeys(clean(row.dataset) for row in rows if row.dataset is not None))
    random = any(row.weights.startswith("random") for row in rows)
    schedule = _same(rows, "schedule")
    parts = (
        _same(rows, "model") + ", random weights" * random,
        _same(rows, "img_size", "{} px"),
        _same(rows, "method") + f" {schedule}" * (schedule != "constant"),
        _same(rows, "device"),
        _same(rows, "dtype"),
        _same(rows, "batch_size", "batch {}"),
        "training" if all(row.mode == "train" for row in rows) else "",
        "compiled" if any(row.compile for row in rows) else "",
        "CUDA graphs" if any(row.cuda_graphs for row in rows) else "",
        "no images" if seen is None else f"{counted(seen, 'image')} of {data}",
    )
    return ", ".join(filter(None, parts))


def _same(rows: Sequence[Row], field: str, template: str = "{}") -> str:
    values = dict.fromkeys(clean(template.format(getattr(row, field))) for row in rows)
    return next(iter(values)) if len(values) == 1 else f"{field} varies"


def _kernels(rows: Sequence[Row]) -> str:
    kernels: dict[str, list[Row]] = {}
    for row in rows:
        kernels.setdefault(clean(row.attn_kernel), []).append(row)
    if len(kernels) == 1:
        return next(iter(kernels))
    return ", ".join(f"{kernel} ({which(rows, members)})" for kernel, members in kernels.items())
