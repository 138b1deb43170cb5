"""Measurement conditions of rows (model, method, device, kernel, images, testbed) as text: in full, and in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from tomebench.report.escape import clean
from tomebench.report.series import model_name, reach, which
from tomebench.runs.row import Row
from tomebench.schema import split_head
from tomebench.words import counted


def conditions(rows: Sequence[Row]) -> tuple[str, ...]:
    """The conditions of a table as lines: model, method, device, images, intervals, testbed. Empty without rows."""
    if not rows:
        return ()
    weights = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", _same(rows, "weights", "weights {}"))
    model = (
        _model(rows),
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
    sets = _image_sets(rows)
    images = ["none, accuracy was not evaluated"]
    if sets:
        mean, std = (f"{field} " + " ".join(f"{x:.4g}" for x in getattr(rows[0], field)) for field in ("mean", "std"))
        crop = (_same(rows, "crop_pct", "crop {:.3g}"), _same(rows, "interpolation"), mean, std)
        images = ["; ".join(f"{data}, {seen} seen" for data, seen in sets), *crop]
    testbeds = "; ".join(dict.fromkeys(clean(row.testbed) for row in rows if row.testbed)) or "unavailable"
    covered = [f"of speeds {reach(rows)}"] if reach(rows) else []
    if any(row.img_per_s_end_to_end_lo is not None for row in rows):
        covered.append("of end-to-end over its turns")
    covered += ["of accuracies over images"] if sets else []
    parts = {"model": model, "method": method, "device": device, "images": images}
    parts |= {"intervals": ["95 %", *covered]} if covered else {}
    parts |= {"testbed": [testbeds]}
    return tuple(f"{head}: {', '.join(filter(None, texts))}" for head, texts in parts.items())


def compact_conditions(rows: Sequence[Row], checkpoint: str | None = None) -> str:
    """The conditions that a pasted table needs, in one line: model, method, device, images. Empty without rows.

    Args:
        rows: of the table.
        checkpoint: the file of the weights.
    """
    if not rows:
        return ""
    images = " and ".join(f"{counted(seen, 'image')} of {data}" for data, seen in _image_sets(rows))
    random = any(row.weights.startswith("random") for row in rows)
    schedule = _same(rows, "schedule")
    model = _model(rows)
    weights, head = split_head(_same(rows, "weights"))
    if checkpoint:
        state = re.search(r"\((?!pretrained).+\)$", weights)  # of a file that holds several
        model = f"{model.partition('.')[0]} with {clean(PurePath(checkpoint).name)}{f' {state[0]}' if state else ''}"
    parts = (
        model + head.partition(" sha256:")[0] + ", random weights" * random,
        _same(rows, "img_size", "{} px"),
        _same(rows, "method") + f" {schedule}" * (schedule != "constant"),
        _same(rows, "device"),
        _same(rows, "dtype"),
        _same(rows, "batch_size", "batch {}"),
        "training" if all(row.mode == "train" for row in rows) else "",
        "compiled" if any(row.compile for row in rows) else "",
        "CUDA graphs" if any(row.cuda_graphs for row in rows) else "",
        images or "no images",
        f"speed {reach(rows)}" if reach(rows) else "",
    )
    return ", ".join(filter(None, parts))


def _image_sets(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Image lists of the rows, each once: (name of the data set, images seen)."""
    sets: dict[str | None, tuple[str, int]] = {}
    for row in rows:
        if row.n_seen is not None:
            data, seen = sets.get(row.dataset_digest, (clean(row.dataset or ""), 0))
            sets[row.dataset_digest] = (data, max(seen, row.n_seen))
    return list(sets.values())


def _model(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(clean(model_name(row.model, row.weights)) for row in rows)
    return next(iter(names)) if len(names) == 1 else "model varies"


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
