"""``tomebench check`` as a user meets it: exit codes, one line for bad input, and what it writes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from check_runs import HERE, edit
from screens import assert_fits, assert_whole_rows

import tomebench
from tomebench.gate import judge as checking
from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.records import packed_bits
from tomebench.identity import code_digest


def test_a_run_passes_against_itself(program, baseline, run):
    result = program("check", "run", "--baseline", "base.json", "--quiet")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[0] == "PASS: 6 same"


def test_the_screen_fits_and_what_has_no_room_is_said_below(program, baseline, run, monkeypatch):
    answer(monkeypatch, baseline, right=False)
    command = ("check", "run", "--baseline", "base.json", "--accuracy", "--speed", "--max-drop", "0", "--quiet")
    monkeypatch.setenv("COLUMNS", "500")
    wide = program(*command).out
    for width in (120, 80, 60, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        for flags in ((), ("--details",)):
            shown = program(*command, *flags).out
            assert_fits(shown, width)
            assert_whole_rows(shown, wide)
            assert shown.startswith("FAIL: 1 worse")
            assert "of 60 right" in " ".join(shown.split())


def test_the_static_tier_needs_no_run(program, baseline, run):
    shutil.rmtree(run)
    result = program("check", "--static", "--baseline", "base.json")
    assert (result.code, result.out.splitlines()[0]) == (0, "PASS: 2 same")
    assert result.err == "computing the static tier of digits_vit\n"


def test_a_sure_loss_of_images_is_exit_3_and_one_that_may_be_chance_exit_4(program, baseline, run, monkeypatch):
    command = ("check", "run", "--baseline", "base.json", "--accuracy", "--max-drop", "0", "--quiet")
    snapshot = read_baseline(baseline)
    before = snapshot.cells[-1].accuracy.values()
    after = before & (np.arange(60) != np.flatnonzero(before)[0])
    answer(monkeypatch, baseline, right=after)
    result = program(*command)
    assert (result.code, result.out.splitlines()[0]) == (4, "CANNOT TELL: 1 inconclusive, 1 same")
    answer(monkeypatch, baseline, right=False)
    result = program(*command)
    assert (result.code, result.out.splitlines()[0]) == (3, "FAIL: 1 worse, 1 same")


def answer(monkeypatch, baseline, right):
    """Let the last cell of the run be right for these of its 60 images."""
    snapshot = read_baseline(baseline)
    *first, last = snapshot.cells
    bits = packed_bits(np.broadcast_to(np.asarray(right, dtype=np.bool_), 60))
    cells = (*first, last.model_copy(update={"accuracy": last.accuracy.model_copy(update={"right": bits})}))
    monkeypatch.setattr(checking, "run_snapshot", lambda store: snapshot.model_copy(update={"cells": cells}))


def test_json_junit_github_and_the_benchmark_formats(program, baseline, run, tmp_path, monkeypatch):
    edit(baseline, accuracy=None)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = program(
        "check", "run", "--baseline", "base.json", "--accuracy", "--quiet", "--json", "--github",
        "--junit", "j.xml", "--benchmark", "g.json", "--bencher", "b.json",
    )  # fmt: skip
    assert result.code == 4
    found = json.loads(result.out)
    assert (found["exit_code"], found["outcome"]) == (4, "CANNOT TELL: 1 missing, 1 same")
    assert [f["verdict"] for f in found["findings"]] == ["same", "missing"]
    assert result.err == "::warning title=tomebench missing::accuracy r=8: the baseline has no accuracy of it\n"
    assert found["remarks"] == []
    assert summary.read_text().startswith("### tomebench: digits_vit\n\n**CANNOT TELL: 1 missing, 1 same**")
    assert 'errors="1"' in (tmp_path / "j.xml").read_text()
    assert {entry["unit"] for entry in json.loads((tmp_path / "g.json").read_text())} == {"%", "img/s", "x"}
    assert "top-1" in json.loads((tmp_path / "b.json").read_text())["digits_vit tome r=0"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "no baseline is given"),
        (["run", "--baseline", "none.json"], 4, "No such file"),
        (["none", "--baseline", "base.json"], 2, "there is no run in none"),
        (["--baseline", "base.json"], 2, "which run?"),
        (["run", "--baseline", "base.json", "--self-check"], 2, "leave --baseline out"),
        (["run", "--baseline", "base.json", "--update-baseline", "--junit", "j.xml"], 2, "of a comparison"),
        (["run", "--baseline", "base.json", "--update-baseline", "--static"], 2, "also has accuracy and speed"),
        (["run", "--update-baseline"], 2, "where to?"),
        (["run", "--update-baseline", "--self-check"], 2, "where to?"),
        (["run", "--baseline", "run/run.sqlite", "--update-baseline"], 2, "would overwrite what is no baseline"),
        (["run", "--self-check", "--accuracy"], 2, "about speeds"),
        (["run", "--baseline", "base.json", "--tolerance", "0"], 2, "--tolerance"),
        (["run", "--baseline", "base.json", "--tolerance", "nan"], 2, "--tolerance"),
        (["run", "--baseline", "base.json", "--max-drop", "x"], 2, "--max-drop"),
        (["run", "--baseline", "base.json", "--github"], 2, "GITHUB_STEP_SUMMARY"),
        (["--baseline", "base.json", "--update-baseline"], 2, "which run?"),
        (["--self-check"], 2, "which run?"),
        (["--static", "--baseline", "base.json", "--checkpoint", "none.safetensors"], 2, "none.safetensors"),
        (
            ["run", "--baseline", "base.json", "--accuracy", "--junit", "base.json/x.xml"],
            2,
            "--junit base.json/x.xml: ",
        ),
        (["run", "--baseline", "base.json", "--accuracy", "--bencher", "."], 2, "--bencher .: Is a directory"),
    ],
)
def test_bad_input_is_one_line(program, baseline, run, monkeypatch, arguments, code, says):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = program("check", *arguments, "--quiet")
    assert result.code == code
    assert says in result.error


BROKEN = {
    "empty": b"",
    "binary": bytes(range(256)),
    "other": b'{"format": "x"}',
    "newer": b'{"format": "tomebench baseline", "version": 9}',
    "nan": b'{"format": "tomebench baseline", "version": 1, "noise_floor": NaN}',
    "huge": None,
    "truncated": None,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("tier", ["--static", "--accuracy"])
def test_a_broken_baseline_is_exit_4_and_red_in_every_report(program, baseline, run, tmp_path, monkeypatch, name, tier):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    if name == "huge":
        with baseline.open("wb") as file:
            file.truncate(200 * 2**20)
    elif name == "truncated":
        baseline.write_bytes(baseline.read_bytes()[:-100])
    else:
        baseline.write_bytes(BROKEN[name])
    result = program("check", "run", "--baseline", "base.json", tier, "--quiet", "--junit", "j.xml", "--github")
    assert result.code == 4
    annotation, error = result.out.splitlines()[-1], result.error
    assert error.startswith("tomebench: error: baseline base.json")
    assert annotation.startswith("::error title=tomebench::baseline base.json")
    assert 'errors="1"' in (tmp_path / "j.xml").read_text()
    assert "NOTHING COMPARED" in (tmp_path / "summary.md").read_text()


def test_settings_in_a_baseline_that_cannot_be_used_are_its_fault(program, baseline):
    snapshot = read_baseline(baseline)
    for settings in (
        {},
        {"model": "m" * 10_000},
        {**snapshot.settings, "surprise": 1},
        {**snapshot.settings, "r": "x"},
        {**snapshot.settings, "ablate": True},
        {**snapshot.settings, "schedule": "list:1,2"},
    ):
        write_baseline(baseline, snapshot.model_copy(update={"settings": settings}))
        result = program("check", "--static", "--baseline", "base.json", "--quiet")
        assert result.code in (2, 4)
        assert len(result.error) < 600


def test_other_weights_at_hand_are_no_comparison(program, baseline, run, tmp_path):
    from safetensors.torch import save_file

    from tomebench.models.create import load_model

    model = load_model("digits_vit", pretrained=False, seed=1).model
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    flags = ("--baseline", "base.json", "--static", "--checkpoint", "other.safetensors", "--quiet")
    result = program("check", *flags)
    assert (result.code, "incomparable" in result.out) == (4, True)
    result = program("check", "run", *flags)
    assert result.code == 2
    assert "is not the one that was measured" in result.error


def test_a_run_of_other_code_is_remarked_upon(program, baseline, run, monkeypatch):
    monkeypatch.setattr(checking, "code_digest", lambda: "0123456789abcdef")
    result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet")
    assert result.code == 0
    assert f"! this run was measured by the code {code_digest()} (of {HERE}), " in " ".join(result.out.split())
    assert " ".join(result.out.split()).endswith("the code at hand is 0123456789abcdef: run it again")
    assert "measured by" not in program("check", "run", "--baseline", "base.json", "--static", "--quiet").out


def test_what_changed_since_the_baseline_is_named_and_other_weights_and_files_are_not_compared(program, baseline, run):
    old = read_baseline(baseline)
    cell = old.cells[-1]
    write_baseline(baseline, old.model_copy(update={"made": {**old.made, "code": "f" * 16, "timm": "0.9"}}))
    result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet")
    assert result.code == 0
    assert f"! since the baseline: code {'f' * 16} -> {code_digest()}, timm 0.9 -> " in " ".join(result.out.split())
    write_baseline(baseline, old.model_copy(update={"made": {**old.made, "weights": "f" * 16}}))
    result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet")
    assert result.code == 4
    assert f"weights {'f' * 16} -> " in result.out
    write_baseline(baseline, old)
    edit(baseline, accuracy=cell.accuracy.model_copy(update={"content": "f" * 16}))
    result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet")
    assert result.code == 4
    assert "hold other images than they did" in " ".join(result.out.split())
    edit(baseline, accuracy=cell.accuracy.model_copy(update={"content": None}))  # as older ones have none
    assert program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet").code == 0


def test_another_testbed_is_remarked_upon(program, baseline, run):
    snapshot = read_baseline(baseline)
    speed = snapshot.cells[-1].speed.model_copy(update={"testbed": "elsewhere"})
    edit(baseline, speed=speed)
    result = program("check", "run", "--baseline", "base.json", "--speed", "--quiet")
    assert result.code == 0
    assert "! the baseline was timed elsewhere" in result.out
    untimed = [cell.model_copy(update={"speed": None}) for cell in snapshot.cells]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "run_snapshot", lambda store: snapshot.model_copy(update={"cells": tuple(untimed)}))
        result = program("check", "run", "--baseline", "base.json", "--speed", "--quiet")
    assert "timed elsewhere" not in result.out, "it was not timed at all"


def test_other_data_and_other_models_are_exit_4(program, baseline, run):
    old = read_baseline(baseline).cells[-1]
    for change in (
        {"accuracy": old.accuracy.model_copy(update={"digest": "other"})},
        {"asked": old.asked.model_copy(update={"model": "vit_b_16"})},
    ):
        edit(baseline, **change)
        result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet")
        assert result.code == 4
        assert "incomparable" in result.out


def test_nothing_to_compare_is_exit_4(program, baseline, run):
    snapshot = read_baseline(baseline)
    empty = tuple(cell.model_copy(update={"static": None, "accuracy": None, "speed": None}) for cell in snapshot.cells)
    write_baseline(baseline, snapshot.model_copy(update={"cells": empty}))
    result = program("check", "run", "--baseline", "base.json", "--quiet")
    assert result.code == 4
    assert result.out.startswith("NOTHING COMPARED")


def test_the_function_finds_what_the_command_finds(baseline, run):
    found = tomebench.check(run, baseline, "static", "accuracy", max_drop=0)
    assert [(f.tier, f.cell, f.verdict) for f in found] == [
        (tier, cell, "same") for tier in ("static", "accuracy") for cell in ("r=0", "r=8")
    ]
    assert tomebench.check(None, baseline, "static") == found[:2]
