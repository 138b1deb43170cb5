"""The command that is proposed after a run ("next:"): it keeps the run's settings, and is always accepted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomebench.models.spec import PREFIX
from tomebench.reduction.methods.flags import OPTIONS
from tomebench.report.advice import advise
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.codes import AGAINST, INTERRUPTED, PARTIAL_EVAL, STOPPED
from tomebench.runs.row import Row
from tomebench.runs.settings import about_images
from tomebench.schema import MAX_DROP
from tomebench.sweeps.config import SweepConfig, command_line, run_directory

_MACHINE = ("device", "dtype", "mode", "compile", "cuda_graphs", "attention", "threads", "method", "option", *OPTIONS)
"""Settings that can be kept for another model."""
_MEASURED = ("r", "cells", "mode", "budget", "processes")
_LARGER = {"quick": "standard", "standard": "publish"}
"""The next larger budget, which aims at narrower intervals."""
_ELSEWHERE = " --name NEW"  # a run folder refuses other images or weights


def next_command(rows: Sequence[Row], config: Mapping[str, Any], directory: Path | None = None) -> str | None:
    """The command to propose, with DIR, MORE_IMAGES, LABELLED, FILE and NEW as placeholders for the user's values.

    None for a model that was passed in Python.

    Args:
        rows: of the run.
        config: its stored settings, :meth:`tomebench.sweeps.config.SweepConfig.stored`.
        directory: the run folder, which a command can continue; by default the one that a sweep of that model takes.
    """
    if is_unnamed(config):
        return None
    if any(INTERRUPTED in row.warnings or PARTIAL_EVAL in row.warnings for row in rows):
        return command_line(config) + _here(config, directory)
    if directory is not None and any(AGAINST in row.warnings for row in rows):
        return f"tomebench check {shlex.quote(str(directory))} --accuracy --baseline FILE"
    if directory is not None and any(STOPPED & {*row.warnings} for row in rows):
        return f"tomebench recommend {shlex.quote(str(directory))}"
    if str(config["model"]).startswith("digits_"):  # the embedded models
        kept = {name: config[name] for name in _MACHINE if config.get(name) != "cpu" and name in config}
        if config.get("predictors"):  # they are of this model only
            kept = {name: value for name, value in kept.items() if name not in ("method", "option", *OPTIONS)}
        return command_line({**kept, "model": "vit_b_16"}) + " --r 0..24"
    if config["data"] is None and config.get("mode") != "train":
        return command_line({**config, "data": "DIR", "checkpoint": _weights(rows, config)}) + _ELSEWHERE
    advice = advise(rows, config.get("max_drop", MAX_DROP))
    if advice is not None and advice.choice == "images" and config.get("limit") is not None:
        return command_line({**config, "limit": None})
    if advice is not None and advice.choice in ("images", "agreement"):  # more images, or images with labels
        data = "MORE_IMAGES" if advice.choice == "images" else "LABELLED"
        return command_line({**config, "data": data, "labels": True, "limit": None}) + _ELSEWHERE
    if advice is not None and advice.choice in ("rounds", "not faster") and advice.images is not None:
        larger, several = _LARGER.get(str(config["budget"]), config["budget"]), config.get("processes")
        if larger == "publish" and several:
            several = max(several, PUBLISH_PROCESSES)
        asked = {**config, "data": "MORE_IMAGES", "limit": None, "budget": larger, "processes": several}
        return command_line(asked) + _ELSEWHERE
    if any(row.status == "unconverged" for row in rows) and (processes := config.get("processes")):
        return command_line({**config, "processes": 2 * processes}) + _here(config, directory)
    if any(row.status == "unconverged" for row in rows) and (larger := _LARGER.get(str(config["budget"]))):
        return command_line({**config, "budget": larger}) + _here(config, directory)
    if advice is not None and advice.choice == "recommended" and directory is not None:
        if advice.row.rounds and (advice.row.processes or 1) == 1:  # no interval covers other processes
            return command_line({**config, "processes": PUBLISH_PROCESSES}) + _here(config, directory)
        run = shlex.quote(str(directory))
        return f"tomebench check {run} --baseline {run}.json --update-baseline"
    planned = {name: value for name, value in config.items() if name not in (*about_images(), "max_drop", *_MEASURED)}
    if config.get("predictors"):  # tokens can go where they stand only
        return command_line(planned).replace("sweep", "plan", 1)
    if "list:" in str(config["schedule"]):  # such a schedule includes r
        del planned["schedule"]
    return command_line(planned).replace("sweep", "plan", 1) + " --r 0..24"


def is_unnamed(config: Mapping[str, Any]) -> bool:
    """Whether the model was passed as a module in Python, so that no command can measure it."""
    return str(config["model"]).startswith(PREFIX)


def _here(config: Mapping[str, Any], directory: Path | None) -> str:
    """The ``--out`` flag that makes a command continue in a run folder; empty where it would do so anyway."""
    asked = SweepConfig.model_construct(**{"out": None, "name": None, "cells": None, **config})
    return "" if directory in (None, run_directory(asked)) else f" --out {shlex.quote(str(directory))}"


def _weights(rows: Sequence[Row], config: Mapping[str, Any]) -> str | None:
    """Value of --checkpoint for top-1; None where timm has weights with ImageNet's classes for the model."""
    if config["checkpoint"] is not None:
        return str(config["checkpoint"])
    if str(config["model"]).startswith("hf/") or config.get("class_head") is not None:  # weights of its own
        return None
    tag = (rows[0].model if rows else str(config["model"])).partition(".")[2]
    return None if tag.endswith("in1k") else "FILE"
