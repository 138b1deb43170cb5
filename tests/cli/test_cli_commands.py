"""Every command's screen, with an engine that says what the test wants."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from cli_program import BASE, MERGED

from tomebench.report import several
from tomebench.report.several import StoredRun
from tomebench.runs.origin import Origin
from tomebench.runs.rows import LIMIT
from tomebench.runs.store import Store
from tomebench.sweeps.config_files import load_config


def test_a_sweep_ends_with_its_table_and_what_makes_it_complete(program, engine, tmp_path):
    engine()
    result = program("sweep", "--model", "vit_tiny", "--r", "0,8", "--out", "runs/[r=8]/x")
    assert result.code == 0
    assert "vit_tiny: 0 cells, going on after 2 timed rounds" in result.err
    assert "batch size 4 [chosen]" in result.err
    lines = [line.rstrip() for line in result.out.splitlines()]
    header = next(line for line in lines if "GMACs" in line)
    assert header.split()[:3] == ["r", "tokens", "GMACs"]
    assert any(line.split()[:2] == ["8", "101"] and "1.31x" in line for line in lines)
    assert any(line.startswith("r=8 is 1.31x faster") for line in lines)
    conditions = "vit_tiny.tag, random weights, 224 px, tome, cpu, fp32, batch 2, no images, speed within one process"
    assert conditions in " ".join(lines)
    assert any(line.startswith("written to runs/[r=8]/x: table.csv, rows.jsonl, ") for line in lines)
    command = " ".join(line.rstrip("\\").strip() for line in lines[lines.index("next:") + 1 :])
    assert command.startswith("tomebench sweep --model vit_tiny --checkpoint FILE --r 0,8 --data DIR")
    details = program("sweep", "--model", "vit_tiny", "--r", "0,8", "--details").out
    assert "\nmodel: vit_tiny.tag" in details
    assert "\ndevice: cpu, fp32, batch 2" in details
    assert (tmp_path / "runs/[r=8]/x/summary.md").read_text().count("tomebench sweep --model vit_tiny --r 0,8") == 1


def test_the_run_folder_is_named_by_default_after_model_and_method(program, engine, tmp_path):
    engine()
    assert program("sweep", "--model", "vit_tiny", "--quiet").err == ""
    assert (tmp_path / "results/vit_tiny-tome/table.csv").is_file()


def test_the_demo_is_a_sweep_of_the_packaged_configuration(program, engine, tmp_path):
    engine()
    result = program("demo", "--r", "0..8")
    assert result.code == 0
    assert (tmp_path / "results/demo/rows.jsonl").is_file()
    assert "tomebench sweep --model vit_b_16" in result.out.splitlines()[-1]


def test_json_is_one_object_and_nothing_else(program, engine):
    engine()
    result = program("sweep", "--model", "m", "--json")
    shown = json.loads(result.out)
    assert [row["r"] for row in shown["rows"]] == [0, 8]
    assert shown["rows"][1]["speedup_vs_r0"] == 1.31
    assert shown["rows"][1]["top1"] is None
    assert shown["conditions"]
    assert any("r=8" in text for text in shown["sentences"])
    assert "timing" in result.err


@pytest.mark.parametrize(
    ("status", "code"), [("ok", 0), ("unconverged", 0), ("failed", 5), ("nonfinite", 5), ("oom", 5)]
)
def test_exit_5_if_a_cell_could_not_be_measured(program, engine, status, code):
    engine(BASE, replace(MERGED, status=status, error="why" if status == "failed" else None))
    result = program("sweep", "--model", "m")
    assert result.code == code
    assert (f"! {status}" in result.out) == (status != "ok")
    assert "written to " in result.out, "the reports are written all the same"


def test_an_interrupted_sweep_prints_the_command_that_goes_on(program, engine):
    from tomebench.errors import Interrupted

    engine(error=Interrupted("stopped"))
    result = program("sweep", "--model", "m", "--out", "a b")
    assert result.code == 130
    assert result.out == ""
    assert result.err.splitlines()[-1].endswith("go on with: tomebench sweep --model m --out 'a b'")


def test_plan_shows_tokens_and_macs_and_loads_no_weights(program):
    result = program("plan", "--model", "deit_ti_16", "--r", "8,16..24:8")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[1].startswith("deit_tiny_patch16_224.fb_in1k, 224 px, 197 tokens, 5.72 M parameters")
    table = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [words[0] for words in table] == ["0", "8", "16", "24"]
    assert table[1][2:15] == ["1.36", *map(str, range(189, 100, -8))]
    assert ["cap" in words for words in table] == [False, False, True, True]


def test_plan_names_cells_that_the_cap_makes_the_same(program):
    command = ("plan", "--model", "deit_ti_16", "--r", "200,300")
    assert "cap, =r=200" in program(*command).out
    assert "capped at what the method can remove, same as r=200" in program(*command, "--details").out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_plan_of_a_gpu_that_is_elsewhere(program):
    """Every packaged configuration can be planned on a laptop; only the time cannot be judged there."""
    result = program("plan", "--config", "vit_b_16_cuda", "--r", "8")
    assert (result.code, result.err) == (0, "")
    assert "13.10" in result.out
    assert "how long it takes cannot be judged here: device 'cuda' is not available" in result.out
    shown = json.loads(program("plan", "--config", "vit_b_16_cuda", "--r", "8", "--json").out)
    assert shown["estimated_seconds"] is None


def test_plan_as_json(program):
    shown = json.loads(program("plan", "--model", "deit_ti_16", "--r", "8", "--json").out)
    assert shown["directory"] == "results/deit_ti_16-tome"
    assert shown["config"]["r"] == "0,8"
    assert [cell["resolved"]["tokens"][-1] for cell in shown["cells"]] == [197, 101]


def test_list(program):
    models = program("list", "models").out
    assert "vit_base_patch16_224.augreg_in21k_ft_in1k" in models
    assert "digits_vit" in models
    assert "tome" in program("list", "methods").out
    assert "digits" in program("list", "datasets").out
    found = program("list", "models", "deit_tiny").out
    assert "deit_tiny_patch16_224" in found
    assert "vit_base_patch16_224\n" not in found
    assert json.loads(program("list", "methods", "--json").out)["methods"][0]["name"] == "tome"
    assert program("list", "methods", "x").code == 2


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("swin_tiny", r"timm has \d+ such models? of another kind; swin_tiny\S+: SwinTransformer has '\w+', which"),
        ("hiera_tiny", r"such models of another kind; hiera_\S+: Hiera has '\w+', which token merging does not know"),
        ("convnext_atto", r"convnext_atto\S*: \w+ has '\w+', which token merging does not know how to run; tomebench"),
        ("no such", r"timm has no model with 'no such' in its name"),
    ],
)
def test_a_list_without_models_says_why(program, pattern, why):
    result = program("list", "models", pattern)
    assert (result.code, result.err) == (0, "")
    number, _, line = result.out.rpartition("models\n")
    assert number.splitlines()[-1].startswith("0 of ")
    assert re.search(why, " ".join(line.split()))
    assert json.loads(program("list", "models", pattern, "--json").out) == {"models": []}


def test_list_papers(program):
    tables = program("list", "papers").out
    assert "readme_augreg_off_the_shelf" in tables
    assert "third_party_toast" in tables
    rows = json.loads(program("list", "papers", "augreg", "--json").out)["papers"]
    assert len(rows) == 8
    (base,) = [row for row in rows if row["model"] == "ViT-B/16" and row["r"] == "13"]
    assert (base["acc"], base["im/s"], base["read"], base["kind"]) == ("82.6", "511", "exact", "reported")


def test_doctor_reports_and_exits_0_when_nothing_is_missing(program):
    result = program("doctor", "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    for what in ("tomebench", "torch", "timm", "results", "device", "threads"):
        assert what in result.out


def test_doctor_exits_2_when_something_asked_for_is_missing(program):
    arguments = ("--model", "vit_b_61", "--data", "nowhere", "--device", "cuda:99", "--threads", "9999")
    result = program("doctor", *arguments)
    assert (result.code, result.err) == (2, "")
    joined = result.out.replace("\n" + " " * 10, " ")  # what a line continues
    rows = {line.split()[0]: " ".join(line.split()) for line in joined.splitlines()}
    assert result.out.startswith("look at ")
    assert "did you mean vit_b_16" in rows["model"]
    assert "no such folder" in rows["data"]
    assert "fail" in rows["device"]
    assert "use --threads" in rows["threads"]


def test_doctor_looks_at_a_model_and_its_images(program):
    result = program("doctor", "--model", "digits_vit", "--data", "digits", "--json")
    found = {finding["what"]: finding for finding in json.loads(result.out)["findings"]}
    assert found["model"]["state"] == found["data"]["state"] == "ok"
    assert found["classes"]["text"] == "10 of 10"
    assert "56 to 56 x 56 to 56 pixels" in found["sizes"]["text"]
    assert program("doctor", "--checkpoint", "x.pth").code == 2


def test_report_of_a_folder_without_a_run(program, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        result = program("report", folder)
        assert result.code == 2
        assert folder in result.error


NOWHERE = Origin({}, None, {})


def stored(monkeypatch, runs, *configs, origins=()):
    """Let rows stand for run folders, of the same settings or each of its own."""
    settings = dict(zip(runs, configs * len(runs), strict=False))
    made = dict(zip(runs, origins, strict=False))

    def read(path):
        return StoredRun(runs[path.name], settings[path.name], 1.0, made.get(path.name, NOWHERE))

    monkeypatch.setattr(several, "read_run", read)


def unwrapped(screen):
    """What a screen says, whatever its width."""
    return " ".join(screen.split())


def test_the_limit_judges_the_rows_anew_and_is_no_part_of_the_run(program, engine, monkeypatch, tmp_path):
    counted = {"n_seen": 50_000, "top1": 80.0, "top1_lost": 425, "top1_gained": 225}
    counted |= {"delta_top1": -0.4, "delta_top1_lo": -0.5, "delta_top1_hi": -0.3}
    rows = [BASE, replace(MERGED, **counted)]
    engine(*rows)
    told = "r=8 is 1.31x faster [1.29, 1.33] at -0.40 points [-0.50, -0.30], surely within "
    untold = "Nothing can be recommended yet: r=8"
    assert f"{told}1 point (" in unwrapped(program("sweep", "--model", "m", "--data", "d").out)
    judged = program("sweep", "--model", "m", "--data", "d", "--max-drop", "0.45", "--out", "results/m-tome")
    assert untold in unwrapped(judged.out)
    summary = tmp_path / "results/m-tome/summary.md"
    assert untold in summary.read_text()
    assert "--max-drop 0.45" in summary.read_text().splitlines()[-1]
    config = load_config([], {"model": "m", "data": "d", "max_drop": 0.45}).stored()
    monkeypatch.setattr(several, "read_run", lambda path: StoredRun(rows, config, 0.45, NOWHERE))
    assert untold in unwrapped(program("report", "results/m-tome").out)
    other = program("report", "results/m-tome", "--max-drop", "0.75")
    assert f"{told}0.75 points (" in unwrapped(other.out)
    assert "written" not in other.out
    assert untold in summary.read_text()  # as whoever measured it wanted it
    shown = json.loads(program("report", "results/m-tome", "--max-drop", "0.45", "--json").out)
    assert shown["max_drop"] == 0.45
    assert shown["sentences"][0].startswith(untold)
    assert shown["answer"] == {
        **{"r": None, "run": None, "choice": "images", "text": shown["sentences"][0], "images": 210_000},
        **{"rounds": None, "processes": None},
    }
    found = json.loads(program("report", "results/m-tome", "--max-drop", "0.75", "--json").out)["answer"]
    assert (found["r"], found["choice"], found["images"]) == (8, "recommended", None)
    both = program("report", "results/m-tome", "results/b", "--max-drop", "0.45").out
    assert untold.replace("r=8", "m-tome r=8") in unwrapped(both)


def test_a_limit_of_nothing_is_a_limit(tmp_path):
    with Store.open(tmp_path / "run", load_config([], {"model": "m"}).stored()) as store:
        store.put(LIMIT, 0.0)
    assert several.read_run(tmp_path / "run").max_drop == 0.0


def test_report_rebuilds_every_run_and_shows_them_together(program, monkeypatch, tmp_path):
    config = load_config([], {"model": "vit_tiny"}).stored()
    runs = {"a": [BASE, MERGED], "b": [replace(row, dtype="bf16") for row in (BASE, MERGED)]}
    stored(monkeypatch, runs, config)
    one = program("report", "a")
    assert one.code == 0
    assert "r=8 is 1.31x faster" in one.out
    both = program("report", "a", "b")
    assert both.code == 0
    assert "dtype" in next(line for line in both.out.splitlines() if "GMACs" in line)
    for name in runs:
        assert (tmp_path / name / "summary.md").is_file()


def test_report_names_the_images_of_runs_over_different_ones(program, monkeypatch, tmp_path):
    config = load_config([], {"model": "vit_tiny", "data": "d"}).stored()
    rows = [replace(row, n_seen=300, dataset="digits", dataset_digest="a" * 64, top1=90.0) for row in (BASE, MERGED)]
    other = [replace(row, dataset="imagenetv2", dataset_digest="b" * 64, top1=50.0) for row in rows]
    runs = {"a": rows, "b": other, "c": rows}
    stored(monkeypatch, runs, config)
    both = program("report", "a", "b").out
    assert next(line for line in both.splitlines() if "speed-up" in line).split()[:2] == ["data", "r"]
    assert [line.split()[:2] for line in both.splitlines() if line.split()[1:2] == ["8"]] == [
        ["digits", "8"],
        ["imagenetv2", "8"],
    ]
    assert "300 images of digits and 300 images of imagenetv2" in unwrapped(both)


FACTS = {"code": "1", "weights": "2", "structure": "3", "torch": "2.14"}


@pytest.mark.parametrize(
    ("facts", "content", "says"),
    [
        (FACTS, {0: "x", 1: "z"}, "b is no part of the sweep of a (image number 2 is another one); measure it anew"),
        (FACTS | {"weights": "4", "code": "5"}, {0: "x"}, "b is no part of the sweep of a (weights 2 -> 4)"),
        (FACTS | {"torch": "2.11"}, {}, "b was measured with another torch than a (torch 2.14 -> 2.11)"),
        (FACTS, {0: "x", 7: "w"}, None),
        ({}, {}, None),
    ],
)
def test_parts_of_one_sweep_are_of_the_same_images_and_model(program, monkeypatch, facts, content, says):
    settings = load_config([], {"model": "vit_tiny", "data": "d"}).stored()
    origins = [Origin(FACTS, "list", {0: "x", 1: "y"}), Origin(facts, "list", content)]
    parts = [settings | {"cells": cells} for cells in ("1/2", "2/2")]
    stored(monkeypatch, {"a": [BASE], "b": [BASE, MERGED]}, *parts, origins=origins)
    result = program("report", "a", "b", "--details")
    if says is not None and "no part" in says:
        assert (result.code, result.out) == (2, "")
        assert says in result.error
        return
    assert result.code == 0
    assert ("measured with another" in result.out, (says or "") in unwrapped(result.out)) == (says is not None, True)


def test_report_says_where_images_of_one_name_are_not_the_same(program, monkeypatch):
    settings = load_config([], {"model": "vit_tiny", "data": "d"}).stored()
    origins = [Origin(FACTS, "list", {0: "x"}), Origin(FACTS | {"weights": "4"}, "list", {0: "y"})]
    runs = {"a": [BASE, MERGED], "b": [replace(row, dtype="bf16") for row in (BASE, MERGED)]}
    stored(monkeypatch, runs, settings, settings | {"dtype": "bf16"}, origins=origins)
    said = unwrapped(program("report", "a", "b").out)
    assert "image number 1 of b is not that of a, under the same name: they are other images" in said
    stored(monkeypatch, runs, settings, settings | {"dtype": "bf16"}, origins=[origins[0], origins[0]])
    assert "other images" not in program("report", "a", "b").out


def test_report_calls_runs_by_their_folders_where_settings_would_be_long(program, monkeypatch, tmp_path):
    config = load_config([], {"model": "vit_tiny"}).stored()
    other = [replace(row, weights="sha256:0123456789abcdef", batch_size=32) for row in (BASE, MERGED)]
    half = [replace(row, dtype="bf16") for row in (BASE, MERGED)]
    runs = {"a": [BASE, MERGED], "b": other, "c": [BASE, MERGED], "both": [*half, BASE, MERGED]}
    stored(monkeypatch, runs, config)
    for there in ("b", "c"):  # other weights and batch size; nothing but another folder
        shown = program("report", "x/a", f"x/{there}").out
        assert next(line for line in shown.splitlines() if "speed-up" in line).split()[:2] == ["run", "r"]
        assert [line.split()[:2] for line in shown.splitlines() if line.split()[1:2] == ["8"]] == [
            ["a", "8"],
            [there, "8"],
        ]
    assert "y/c r=8 is 1.31x faster" in program("report", "x/c", "y/c").out.replace("x/c r=8", "y/c r=8")
    inner = program("report", "a", "both").out
    assert next(line for line in inner.splitlines() if "speed-up" in line).split()[:3] == ["run", "dtype", "r"]


def test_a_closed_pipe_is_no_bug():
    arguments = ("plan", "--model", "test_vit", "--r", "0..8")
    program = subprocess.Popen(
        [sys.executable, "-m", "tomebench", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == 5


def test_an_image_size_that_the_patches_do_not_divide_is_one_line(program):
    result = program("plan", "--model", "test_vit", "--img-size", "100", "--r", "0")
    assert result.code == 2
    assert "cannot take 100 pixels" in result.error


def test_a_run_named_twice_is_refused(program):
    result = program("report", "a", "./a")
    assert result.code == 2
    assert "named twice" in result.error


def test_doctor_sees_a_head_that_does_not_fit_the_images(program):
    result = program("doctor", "--model", "test_vit", "--data", "digits", "--threads", "-1")
    assert result.code == 2
    assert "1 000 classes and digits 10" in result.out
    assert "-1 is no number of threads" in result.out
