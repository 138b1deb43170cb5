"""``tomebench list``: available models, reduction methods, data sets, reported tables of papers, and columns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Annotated

import typer

from tomebench.cli.architectures import of_timm
from tomebench.cli.options import Details, Json, Traceback
from tomebench.errors import SpecError
from tomebench.report.narrow import without
from tomebench.words import counted

_KINDS = ("models", "methods", "datasets", "papers", "columns")


def list_(
    kind: Annotated[str, typer.Argument(metavar="models|methods|datasets|papers|columns", help="What to list.")],
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="Models of timm or reported tables of such names; or one method."),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="All transformers of timm, with why they cannot be merged; builds each of them."),
    ] = False,
    json: Json = False,
    details: Details = False,
    traceback: Traceback = False,
) -> None:
    """What exists: models, methods, datasets, papers, columns.

    Example: tomebench list models

    Example: tomebench list models deit

    Example: tomebench list models --all dinov3

    Example: tomebench list methods kmeans

    Example: tomebench list papers augreg
    """
    from tomebench.cli.console import open_screen

    if kind not in _KINDS:
        raise SpecError(f"nothing to list called {kind!r}; use {', '.join(_KINDS)}")
    if pattern is not None and kind not in ("models", "methods", "papers"):
        raise SpecError(f"only models and papers take a pattern, and methods a name; drop {pattern!r}")
    if every and kind != "models":
        raise SpecError("--all lists models; leave it out")
    kinds = {
        "models": of_timm if every else _models,
        "methods": _methods,
        "datasets": _datasets,
        "papers": _papers,
        "columns": _columns,
    }
    headers, rows, footer = kinds[kind](pattern)
    screen = open_screen(as_json=json, details=details)
    if screen.as_json:
        screen.object({kind: [dict(zip(headers, row, strict=True)) for row in rows]})
        return
    if headers == _REPORTED:
        lost = screen.table(headers, rows, left=headers, steps=_NARROWER, keys=_REPORTED[:2])
        screen.line()
        screen.remarks((), (), lost)
    else:
        screen.listing(headers, rows)
        screen.line()
    for line in footer:
        screen.line(line)


_REPORTED = ("table", "model", "size", "training", "method", "r", "acc", "im/s", "GFLOPs", "schedule", "read", "kind")
_NARROWER = tuple(map(without, ("training", "kind", "read", "schedule", "method", "size", "GFLOPs", "im/s", "table")))
"""Columns that are left out, in this order, where these tables do not fit."""

_Listing = tuple[Sequence[str], Sequence[Sequence[str]], Sequence[str]]  # headers, rows, lines below the table


def _models(pattern: str | None) -> _Listing:
    import timm

    from tomebench.models.aliases import ALIASES, PRESETS
    from tomebench.models.families import FAMILIES

    adapted = [module for module, needs in FAMILIES.items() if not needs]
    known = sorted(name for module in adapted for name in timm.list_models(module=module))
    if pattern is not None:
        found = [(name, "timm") for name in known if pattern in name]
        why = [] if found else [_why_none(pattern)]
        return ("name", "from"), found, [f"{len(found)} of {counted(len(known), 'model')}", *why]
    rows = [(name, "", note) for name, note in PRESETS.items()]
    rows += [(name, alias.timm_id, alias.note) for name, alias in ALIASES.items()]
    more = (
        f"and {len(known)} Vision Transformers of timm by their own names, with or without a tag; "
        "see: tomebench list models deit; and --all for what cannot be merged"
    )
    return ("name", "timm id", "what it is"), rows, [more]


def _why_none(pattern: str) -> str:
    """Why no model has ``pattern`` in its name, in a line."""
    import timm

    from tomebench.backbones.adapt import adapt
    from tomebench.errors import ModelError
    from tomebench.models.create import build_model

    others = sorted(timm.list_models(f"*{glob.escape(pattern)}*"), key=lambda name: not name.startswith(pattern))
    if not others:
        return f"timm has no model with {pattern!r} in its name"
    try:
        adapt(build_model(others[0], meta=True).model)
    except ModelError as error:
        return f"timm has {counted(len(others), 'such model')} of another kind; {others[0]}: {error}"
    return f"{others[0]} can be merged all the same; see: tomebench plan --model {others[0]}"


def _methods(name: str | None) -> _Listing:
    from tomebench.reduction.choices import range_of, written
    from tomebench.reduction.registry import method_class, methods, option_defaults

    if name is None:
        more = ["tomebench list methods NAME lists the options of one, which --option NAME=VALUE sets"]
        return ("name", "what it does"), [(info.name, info.doc) for info in methods().values()], more
    kind = method_class(name)
    rows = [(option, written(default), range_of(kind, option)) for option, default in option_defaults(kind).items()]
    none = [] if rows else [f"{name} has no options"]
    return ("--option", "default", "values"), rows, [*none, f"source: {kind.source}"]


def _datasets(_: str | None) -> _Listing:
    from tomebench.datasets.readers import READERS

    rows = [
        ("digits", "embedded: held-out UCI optical digits, drawn at 56 pixels among clutter; for --model digits_vit"),
        ("digits-train", "embedded: the other two thirds of these digits, to train predictors on"),
        ("DIR", "a folder of class folders: ImageNet ids (n01440764, ...) or the model's own; or its val folder"),
        ("FILE.tar", "the same in one tar; or the original validation tar with the labels beside it; or its folder"),
        *((reader.form, reader.doc) for reader in READERS.values()),
    ]
    return ("--data", "what it is"), rows, ["tomebench doctor --data DATA tells what is found there"]


def _columns(_: str | None) -> _Listing:
    from tomebench.runs.row import COLUMNS

    rows = [(column.name, column.unit or "", column.doc) for column in COLUMNS]
    return ("column", "unit", "what it is"), rows, ["of table.csv and rows.jsonl, and fields of a row in Python"]


def _papers(pattern: str | None) -> _Listing:
    from tomebench.paper.reported import reported_tables

    tables = reported_tables()
    if pattern is None:
        rows = [
            (
                name,
                str(len(found)),
                ", ".join(dict.fromkeys(row.model for row in found)),
                found[0].kind,
                found[0].source,
            )
            for name, found in tables.items()
        ]
        more = "what the ToMe paper (arXiv 2210.09461) and others report; see: tomebench list papers augreg"
        return ("table", "rows", "models", "kind", "source"), rows, [more]
    chosen = [row for name, found in tables.items() if pattern in name for row in found]
    if not chosen:
        raise SpecError(f"no reported table with {pattern!r} in its name; see: tomebench list papers")
    lines = [
        (
            row.table,
            row.model,
            row.image_size,
            row.training,
            row.method,
            *(_number(value) for value in (row.r, row.acc, row.im_s, row.gflops)),
            row.schedule,
            row.confidence,
            row.kind,
        )
        for row in chosen
    ]
    notes = list(
        dict.fromkeys(f"acc and im/s are {row.metric}; {row.hardware or 'hardware not stated'}" for row in chosen)
    )
    return _REPORTED, lines, notes


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
