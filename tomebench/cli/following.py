"""The command worth trying after a run. It keeps the run's settings, and is never one that would be refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomebench.models.spec import PREFIX
from tomebench.report.advice import advise
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.codes import INTERRUPTED, PARTIAL_EVAL
from tomebench.runs.row import Row
from tomebench.runs.settings import about_images
from tomebench.schema import MAX_DROP
from tomebench.sweeps.config import SweepConfig, command_line, run_directory

_MACHINE = ("device", "dtype", "mode", "compile", "cuda_graphs", "attention", "threads")
"""Settings that mean the same for any model."""
_MEASURED = ("r", "cells", "mode", "budget", "processes")
_LARGER = {"quick": "standard", "standard": "publish"}
"""What aims at narrower intervals than a budget."""
_ELSEWHERE = " --name NEW"  # other images or weights in the same folder are refused


def next_command(rows: Sequence[Row], config: Mapping[str, Any], directory: Path | None = None) -> str | None:
    """The next command, with DIR, MORE_IMAGES, LABELLED, FILE and NEW for what the user has to say.

    None for a nameless model.

    Args:
        rows: of the run.
        config: its stored settings, :meth:`tomebench.sweeps.config.SweepConfig.stored`.
        directory: the run folder, where a command can go on; by default the one that a sweep of that model takes.
    """
    if is_unnamed(config):
        return None
    if any(INTERRUPTED in row.warnings or PARTIAL_EVAL in row.warnings for row in rows):
        return command_line(config) + _here(config, directory)
    if config["model"] == "digits_vit":
        kept = {name: config[name] for name in _MACHINE if config.get(name) != "cpu" and name in config}
        return command_line({**kept, "model": "vit_b_16"}) + " --r 0..24"
    if config["data"] is None and config.get("mode") != "train":
        return command_line({**config, "data": "DIR", "checkpoint": _weights(rows, config)}) + _ELSEWHERE
    advice = advise(rows, config.get("max_drop", MAX_DROP))
    if advice is not None and advice.choice == "images" and config.get("limit") is not None:
        return command_line({**config, "limit": None})
    if advice is not None and advice.choice in ("images", "agreement"):  # more of them, or such as have labels
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
        if advice.row.rounds and (advice.row.processes or 1) == 1:  # which differ by what no interval of one has
            return command_line({**config, "processes": PUBLISH_PROCESSES}) + _here(config, directory)
        run = shlex.quote(str(directory))
        return f"tomebench check {run} --baseline {run}.json --update-baseline"
    planned = {name: value for name, value in config.items() if name not in (*about_images(), "max_drop", *_MEASURED)}
    if str(config["schedule"]).startswith("list:"):  # which says r itself
        del planned["schedule"]
    return command_line(planned).replace("sweep", "plan", 1) + " --r 0..24"


def is_unnamed(config: Mapping[str, Any]) -> bool:
    """Whether the model was handed over in Python, so that no command can measure it."""
    return str(config["model"]).startswith(PREFIX)


def _here(config: Mapping[str, Any], directory: Path | None) -> str:
    """What makes a command go on in a folder: nothing where it would do so anyway."""
    asked = SweepConfig.model_construct(**{"out": None, "name": None, "cells": None, **config})
    return "" if directory in (None, run_directory(asked)) else f" --out {shlex.quote(str(directory))}"


def _weights(rows: Sequence[Row], config: Mapping[str, Any]) -> str | None:
    """What --checkpoint takes for top-1; None where timm has weights for ImageNet's classes under the model's name."""
    if config["checkpoint"] is not None:
        return str(config["checkpoint"])
    tag = (rows[0].model if rows else str(config["model"])).partition(".")[2]
    return None if tag.endswith("in1k") else "FILE"
