"""The command that a finished run proposes: it keeps the settings, and it would not be refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from cli_program import BASE, MERGED

from tomebench.cli import app, results
from tomebench.cli.following import next_command
from tomebench.cli.launch import LaunchFlags
from tomebench.errors import ConfigError
from tomebench.sweeps.config import SweepConfig, run_directory
from tomebench.sweeps.config_files import load_config, packaged_configs


def proposed(settings, status="ok", model="vit_tiny.in1k", files=()):
    rows = [replace(BASE, model=model), replace(MERGED, model=model, status=status)]
    return next_command(rows, load_config(files, settings).stored())


def accepted(line: str) -> SweepConfig:
    """The configuration that a command line asks for, as the program reads it; raises if it would be refused."""
    program, name, *arguments = shlex.split(line)
    assert program == "tomebench"
    given = typer.main.get_command(app.app).commands[name].make_context(name, arguments).params
    del given["help_all"]
    return LaunchFlags.of(given).load()


def test_accepted_refuses_what_the_program_refuses():
    with pytest.raises(ConfigError):
        accepted("tomebench sweep --model m --mode train --data DIR")
    with pytest.raises(typer.TyperException):
        accepted("tomebench sweep --modle m")


@pytest.mark.parametrize(
    ("settings", "status", "model", "following"),
    [
        ({"model": "digits_vit", "data": "digits"}, "ok", "digits_vit", "tomebench sweep --model vit_b_16 --r 0..24"),
        (
            {"model": "digits_vit", "data": "digits", "device": "cuda", "dtype": "bf16", "r": "8", "compile": True},
            "ok",
            "digits_vit",
            "tomebench sweep --model vit_b_16 --device cuda --dtype bf16 --compile --r 0..24",
        ),
        (
            {"model": "m", "dtype": "bf16", "batch_size": 4},
            "ok",
            "vit_tiny.augreg_in21k_ft_in1k",
            "tomebench sweep --model m --data DIR --dtype bf16 --batch-size 4 --name NEW",
        ),
        ({"model": "m"}, "ok", "vit_tiny.mae", "tomebench sweep --model m --checkpoint FILE --data DIR --name NEW"),
        ({"model": "hf/o/n"}, "ok", "hf/o/n", "tomebench sweep --model hf/o/n --data DIR --name NEW"),
        ({"model": "digits_rope", "data": "digits"}, "ok", "digits_rope", "tomebench sweep --model vit_b_16 --r 0..24"),
        ({"model": "m"}, "ok", "swag_vit_b_16", "tomebench sweep --model m --checkpoint FILE --data DIR --name NEW"),
        (
            {"model": "m", "checkpoint": "a b.pth"},
            "ok",
            "m",
            "tomebench sweep --model m --checkpoint 'a b.pth' --data DIR --name NEW",
        ),
        (
            {"model": "m", "data": "d"},
            "unconverged",
            "m",
            "tomebench sweep --model m --data d --budget standard",
        ),
        (
            {"model": "m", "mode": "train", "budget": "standard"},
            "unconverged",
            "m",
            "tomebench sweep --model m --mode train --budget publish",
        ),
        (
            {"model": "m", "mode": "train", "processes": 3},
            "unconverged",
            "m",
            "tomebench sweep --model m --mode train --processes 6",
        ),
        ({"model": "m", "mode": "train", "budget": "publish"}, "ok", "m", "tomebench plan --model m --r 0..24"),
        ({"model": "m", "data": "d", "img_size": 96}, "ok", "m", "tomebench plan --model m --img-size 96 --r 0..24"),
        ({"model": "m", "data": "d", "schedule": "list:8,8"}, "ok", "m", "tomebench plan --model m --r 0..24"),
    ],
)
def test_the_next_command(settings, status, model, following):
    assert proposed(settings, status, model) == following
    accepted(following)


def judged(settings, directory=None, **fields):
    """The next command after a row with these images lost, or answered as before, of 1000."""
    rows = [replace(BASE, n_seen=1000), replace(MERGED, n_seen=1000, **fields)]
    line = next_command(rows, load_config([], {"model": "m", "data": "d", **settings}).stored(), directory)
    assert line is not None
    return line


def test_what_the_answer_lacks_is_proposed(tmp_path):
    few = {"top1_lost": 7, "top1_gained": 0, "delta_top1": -0.7}
    more = "tomebench sweep --model m --data MORE_IMAGES --name NEW"
    assert judged({}, **few) == more
    assert judged({}, **few, status="unconverged") == more, "no larger budget tells what too few images cannot"
    assert judged({"limit": 1000}, **few) == "tomebench sweep --model m --data d"
    slow = {"speedup_vs_r0": 1.01, "speedup_vs_r0_lo": 0.99, "speedup_vs_r0_hi": 1.03}
    both = judged({}, **few, **slow, status="unconverged")
    assert both == "tomebench sweep --model m --data MORE_IMAGES --budget standard --name NEW"
    several = judged({"budget": "standard", "processes": 3}, **few, **slow, status="unconverged")
    assert several == "tomebench sweep --model m --data MORE_IMAGES --budget publish --processes 5 --name NEW"
    for line in (both, several):
        accepted(line)
    labelled = "tomebench sweep --model m --data LABELLED --name NEW"
    assert judged({"labels": False}, agreed=900, agreement=90.0) == labelled
    accepted(labelled)
    for line in (more, judged({"limit": 1000}, **few)):
        accepted(line)


def test_what_is_recommended_can_be_kept_as_a_baseline(tmp_path):
    kept = {"top1_lost": 0, "top1_gained": 0, "delta_top1": 0.0}
    more = judged({}, tmp_path / "a b", **kept)  # of one process, of which none is made
    assert shlex.split(more) == shlex.split(f"tomebench sweep --model m --data d --processes 5 --out '{tmp_path}/a b'")
    found = judged({}, tmp_path / "a b", **kept, processes=5)
    run = f"'{tmp_path}/a b'"
    assert shlex.split(found) == shlex.split(f"tomebench check {run} --baseline {run}.json --update-baseline")
    assert judged({}, top1_lost=300, top1_gained=0, delta_top1=-30.0) == "tomebench plan --model m --r 0..24"


@pytest.mark.parametrize(("code", "status"), [("INTERRUPTED", "unconverged"), ("PARTIAL_EVAL", "ok")])
def test_what_was_stopped_goes_on_in_its_folder(tmp_path, code, status):
    rows = [BASE, replace(MERGED, warnings=(code,), status=status)]
    config = load_config([], {"model": "digits_vit", "data": "digits", "r": "0,8"}).stored()
    command = "tomebench sweep --model digits_vit --r 0,8 --data digits"
    assert next_command(rows, config) == next_command(rows, config, run_directory(accepted(command))) == command
    there = next_command(rows, config, tmp_path / "a b")
    assert there == f"{command} --out '{tmp_path}/a b'"
    assert accepted(there).out == tmp_path / "a b"


def test_it_is_part_of_the_results(tmp_path):
    context = results.write_run(tmp_path / "x", [BASE, MERGED], load_config([], {"model": "m", "data": "d"}).stored())
    assert context.next_command == "tomebench plan --model m --r 0..24"
    assert context.paths[0].endswith("x/table.csv")


@pytest.mark.parametrize("status", ["ok", "unconverged"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "train"},
        {"mode": "train", "compile": True, "r": "8", "schedule": "decreasing"},
        {"data": "d", "budget": "none", "limit": 9, "real": "r.json", "allow_missing": 2, "cache": "c", "verify": "v"},
        {"data": "d", "budget": "publish", "end_to_end": True, "cuda_graphs": True},
        {"cells": "2/4", "out": "there"},
        {"data": "d", "labels": False, "max_drop": 0.5, "num_classes": 7},
        {"data": "d", "checkpoint": Path("w.pth"), "use_ema": True, "class_names": "natural"},
        {"cells": "2/4", "data": "d", "workers": 0},
        {"schedule": "list:1,2,3"},
        {"schedule": "list:1,2,3", "data": "d", "budget": "quick"},
        {"ablate": True, "data": "d"},
        {"metric": "k,q", "combine": "mean", "prop_attn": False, "prefix_only": True, "ceiling": True},
        {"matching": "kmeans-2", "data": "d", "attention": "matmul", "threads": 2, "seed": 3, "offline": True},
    ],
)
def test_no_configuration_is_told_to_run_what_is_refused(settings, status):
    for model in ("vit_b_16", "swag_vit_b_16", "mae_vit_b_16", "digits_vit"):
        accepted(proposed({"model": model, **settings}, status))


@pytest.mark.parametrize("name", packaged_configs())
def test_no_packaged_configuration_is_either(name):
    values = {} if name != "speed_cuda" else {"model": "vit_b_16"}
    for status in ("ok", "unconverged"):
        accepted(proposed(values, status, files=[packaged_configs()[name]]))
