"""``tomebench reproduce`` from the command line: the whole path on the miniature, and what goes wrong with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_runs import fast
from latex_document import compiles, document
from PIL import Image
from safetensors.torch import load_file, save_file
from screens import assert_fits, assert_whole_rows

from tomebench.datasets.imagenet import wnids
from tomebench.models.create import build_model
from tomebench.models.digits_vit import NAME, weights_of
from tomebench.paper.tables import TABLES

QUICK = ("--threads", "1", "--workers", "0", "--quiet")
TOP1_ONLY = ("reproduce", "digits", *QUICK, "--budget", "none", "--json")


@pytest.fixture(autouse=True)
def wide(eighty_columns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen on which nothing is left out and no line ends before its time."""
    monkeypatch.setenv("COLUMNS", "1000")


def verdicts(result) -> dict[int, str]:
    """By r, of the lines of the run."""
    return {line["r"]: line["verdict"] for line in json.loads(result.out)["lines"] if line["gmacs"] is not None}


def off(result) -> list[int]:
    """Images by which top-1 is off, line by line."""
    return [
        f["images"] for line in json.loads(result.out)["lines"] for f in line["findings"] if f["images"] is not None
    ]


@pytest.mark.parametrize(
    ("part", "outcome", "code"),
    [
        (("--r", "0,12,24"), "3 reproduced, 4 without a verdict", 4),  # four rows are left out
        pytest.param((), "7 reproduced", 0, marks=pytest.mark.slow),
    ],
)
def test_the_whole_path_on_the_miniature(program, monkeypatch, tmp_path, part, outcome, code):
    """Weights, preprocessing, top-1, speed and verdict; printed, as JSON, and written as markdown and LaTeX."""
    fast(monkeypatch, rounds=6)
    quick = (*QUICK, "--batch-size", "16", *part)
    result = program("reproduce", "digits", *quick)
    assert (result.code, result.err) == (code, "")
    lines = result.out.splitlines()
    assert lines[1] == "The miniature: the embedded model and images"
    rows = [line.split() for line in lines if "reproduced" in line and line.lstrip()[0].isdigit()]
    found = {row[0]: row[1:4] for row in rows if len(row) > 8}
    assert (
        found.items()
        >= {r: [top1, top1, "+0"] for r, top1 in (("0", "96.49"), ("12", "95.66"), ("24", "88.65"))}.items()
    )
    assert lines[0] == outcome
    assert "1.37x" in result.out, "the reported speed-up, not that of the fake clock"
    folder = tmp_path / "results" / "paper-digits"
    assert (folder / "vit" / "run.sqlite").exists()
    markdown = (folder / "table.md").read_text()
    assert markdown.count("| reproduced |") == int(outcome[0])
    assert "reported: tomebench sweep --config paper/digits/vit (exact); AMD EPYC" in markdown

    for kind, written in (("markdown", markdown), ("latex", (folder / "table.tex").read_text())):
        again = program("reproduce", "digits", *quick, "--format", kind)
        assert (again.code, again.out) == (code, written), "a finished run is shown again, ready to be pasted"
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = program("reproduce", "digits", *quick).out
        assert_fits(shown, width)
        assert_whole_rows(shown, result.out)
        assert all(head in shown for head in ("top-1 rep.", "speed-up", "verdict"))
    if shutil.which("pdflatex"):
        assert compiles(document(written), tmp_path)

    found = json.loads(program("reproduce", "digits", *quick, "--json").out)
    assert (found["exit_code"], found["outcome"], found["missing"]) == (code, outcome, {})
    line = next(line for line in found["lines"] if line["r"] == 12)
    assert (line["r"], line["reported"]["acc"], line["reported"]["confidence"]) == (12, 95.66, "exact")
    assert line["reported_speedup"] == pytest.approx(565.6 / 412.8)
    assert line["mac_ratio"] == pytest.approx(1.62, abs=0.01)
    assert line["row"]["speedup_vs_r0_lo"] <= line["row"]["speedup_vs_r0"] <= line["row"]["speedup_vs_r0_hi"]
    assert [finding["quantity"] for finding in line["findings"]] == ["GMACs", "tokens", "top-1"]
    assert len(line["tokens"]) == 8


@pytest.mark.parametrize(
    ("wrong", "r", "where"),
    [
        (("--preprocessing", "tome"), "0", {0}),
        pytest.param(("--no-prop-attn",), "0,20", {20}, marks=pytest.mark.slow),
    ],
)
def test_a_wrong_setting_is_detected(program, wrong, r, where):
    """Another crop, or no proportional attention: what is not as reported differs, and no other row."""
    result = program(*TOP1_ONLY, "--r", r, *wrong)
    assert result.code == 3
    found = verdicts(result)
    assert {each for each, verdict in found.items() if verdict == "differs"} == where
    assert {found[each] for each in found.keys() - where} <= {"reproduced"}


def test_the_wrong_weights_are_detected_and_the_settings_to_look_at_are_named(program, tmp_path):
    """Weights of another training, such as those of another tag, under the same name."""
    state = load_file(weights_of(NAME))
    noise = torch.randn(state["head.weight"].shape, generator=torch.Generator().manual_seed(0))
    state["head.weight"] += state["head.weight"].std() * noise
    save_file(state, tmp_path / "other.safetensors")
    flags = ("reproduce", "digits", *QUICK, "--budget", "none", "--r", "0", "--checkpoint", "other.safetensors")
    result = program(*flags)
    assert result.code == 3
    (line,) = [line for line in result.out.splitlines() if "more than the 1 that may differ" in line]
    assert "look at the weights and at crop 1, bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5" in line
    assert result.out.count("top-1 differs\n") == 1


def test_some_of_the_images_are_partial_data(program):
    result = program(*TOP1_ONLY, "--r", "0", "--limit", "30")
    assert result.code == 4
    assert verdicts(result) == {0: "partial data"}
    assert off(result) == []


def test_costs_without_images_or_weights(program):
    result = program("reproduce", "audio", "--static", "--offline")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("48.52") == 2
    assert "6 agree in GMACs and tokens" in result.out


def test_what_is_missing_is_named_and_the_costs_are_checked_all_the_same(program, tmp_path):
    result = program("reproduce", "swag/b_384", "--offline", "--r", "0,5,45")
    assert (result.code, result.err) == (4, "")
    assert (
        "! not measured: swag/b_384: images: pass the validation set of ImageNet with --data\n"
        "! not measured: swag/b_384: weights: vit_b_16_swag-9ac1b537.pth, published by torchvision as "
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1; put it into a folder and pass that with --weights"
    ) in result.out
    assert "2 not measured, 1 agree in tokens" in result.out
    assert "for context" not in result.out, "what others measured of SWAG is of other models"
    assert not (tmp_path / "results").exists()

    mae = program("reproduce", "mae/l", "--static", "--r", "0", "--details").out
    assert "ToaST project README (re-measurement, not the paper)" in mae.partition("Measured by others, for context")[2]
    deit = program("reproduce", "deit_trained/ti", "--offline", "--data", "digits", "--r", "0").out
    assert (
        "f367470145_deit_T_r13.pth, published at https://dl.fbaipublicfiles.com/tome/f367470145_deit_T_r13.pth" in deit
    )
    timm = program("reproduce", "augreg/ti_224", "--offline", "--data", "digits", "--r", "0").out
    assert (
        "weights: vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors, published as model.safetensors of timm/"
        in timm
    )


@pytest.fixture
def two_images(tmp_path):
    """Two images of two classes of ImageNet."""
    for number in range(2):
        folder = tmp_path / "val" / wnids()[number]
        folder.mkdir(parents=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((256, 256)).save(folder / f"{number}.JPEG")
    return tmp_path / "val"


@pytest.mark.slow
def test_a_file_in_the_folder_of_weights_is_used_and_its_results_stay_when_it_is_gone(program, two_images, tmp_path):
    file = tmp_path / "files" / "f367470145_deit_T_r13.pth"
    file.parent.mkdir()
    torch.save({"model": build_model("deit_ti_16", seed=7).model.state_dict()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    flags = ("deit_trained/ti", "--data", "val", "--r", "13", "--budget", "none", "--device", "cpu", *QUICK)
    result = program("reproduce", *flags, "--weights", "files")
    assert (result.code, result.err) == (4, "")
    assert f"weights sha256:{digest}" in program("reproduce", *flags, "--weights", "files", "--details").out
    assert "1 partial data" in result.out
    measured = (tmp_path / "results/paper-deit_trained/table-ti.md").read_text()
    assert "| partial data |" in measured
    file.unlink()
    again = program("reproduce", *flags, "--weights", "files")
    assert (again.code, again.out) == (4, result.out)
    other = program("reproduce", *flags, "--weights", "files", "--no-prop-attn")
    assert "not measured: deit_trained/ti: weights: f367470145_deit_T_r13.pth" in other.out, "asked for other settings"
    assert (tmp_path / "results/paper-deit_trained/table-ti.md").read_text() == measured
    more = program("reproduce", *flags, "--r", "8,13", "--weights", "files")
    assert "not measured: deit_trained/ti: weights" in more.out, "r = 8 never was"
    fewer = program("reproduce", *flags, "--r", "0", "--weights", "files")
    assert "not measured: deit_trained/ti" not in fewer.out, "r = 0 was, with r = 13"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "it is empty; fetch it again"), (b"junk", "damaged, or holds more")]
)
def test_a_damaged_file_in_the_folder_of_weights_is_named_with_what_it_should_be(
    program, two_images, tmp_path, content, reason
):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "f367470145_deit_T_r13.pth").write_bytes(content)
    flags = ("--data", "val", "--weights", "files", "--budget", "none", "--device", "cpu")
    result = program("reproduce", "deit_trained/ti", *flags, *QUICK)
    assert (result.code, result.err) == (4, "")
    (line,) = [line for line in result.out.splitlines() if line.startswith("! not measured: deit_trained/ti: ")]
    assert reason in line
    assert "--weights DIR takes f367470145_deit_T_r13.pth, published at https://" in line


def test_costs_and_speed_leave_the_table_alone(program, quick_sweeps, tmp_path):
    assert program(*TOP1_ONLY, "--r", "0", "--limit", "5").code == 4
    table = tmp_path / "results" / "paper-digits" / "table.md"
    before = table.read_text()
    folder = ("--out", "results/paper-digits")
    assert program("reproduce", "digits", "--static", *folder).code == 0
    speed = program("reproduce", "digits", "--speed", *folder, *QUICK, "--r", "0,8", "--batch-size", "2")
    assert (speed.code, speed.err) == (0, "")
    assert table.read_text() == before
    assert {path.name for path in table.parent.iterdir()} == {
        "vit", "vit-speed", *(f"{name}.{kind}" for name in ("table", "costs", "speed") for kind in ("md", "tex"))
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [("video",), ("audio",), ("training", "--budget", "none")])
def test_what_was_not_compared_is_no_success(program, arguments):
    none = () if arguments[0] in ("video", "audio") else ("--budget", "none", "--workers", "0")
    assert program("reproduce", *arguments, "--quiet", *none).code == 4


def test_what_needs_no_images_is_timed_without_any(program, quick_sweeps):
    """A training step of a small model in place of DeiT-S; images that are given go to the runs that use some."""
    flags = ("--model", "digits_vit", "--batch-size", "2", "--r", "0,13", "--budget", "quick", "--device", "cpu")
    result = program("reproduce", "training", *QUICK, *flags, "--data", "digits", "--json")
    assert result.code == 3, "another model has other costs"
    line = next(line for line in json.loads(result.out)["lines"] if line["r"] == 13 and line["row"])
    assert (line["row"]["mode"], line["row"]["top1"], line["reported_speedup"]) == ("train", None, 1.5)
    assert line["row"]["speedup_vs_r0"] is not None
    assert "hours of training a video model" in program("reproduce", "training", "--static").out


def test_the_list_names_every_table_and_its_runs(program):
    result = program("reproduce", "--list")
    assert (result.code, result.err) == (0, "")
    for name in TABLES:
        assert any(line.startswith(f"{name} ") for line in result.out.splitlines())
    found = json.loads(program("reproduce", "--list", "--json").out)["tables"]
    assert {row["table"]: row["runs"] for row in found}["swag"] == "b_384, h_518, l_512"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which table? name one; see: --list"),
        (("digits", "--list"), "--list lists all tables; leave the table out"),
        (("digits", "--json", "--format", "latex"), "--json and --format print two different things"),
        (("audio", "--model", "vit_b_16"), "table audio measures nothing; leave --model out"),
        (("video", "--weights", "."), "table video measures nothing; leave --weights out"),
        (("digits", "--static", "--checkpoint", "w.pth"), "checkpoint w.pth: no such file"),
        (("pruning", "--config", "one.yaml"), "checkpoint is one file for 3 runs"),
        (("digits", "--static", "--out", "one.yaml"), "--out one.yaml: File exists; give a folder"),
        (("augreq",), "no table 'augreq'; did you mean augreg?"),
        (("augreg/x",), "table augreg has no run 'x'; it has "),
        (("digits", "--format", "html"), "--format 'html': use console, markdown, latex"),
        (("digits", "--static", "--speed"), "--static measures nothing and --speed only times"),
        (("digits", "--name", "mine"), "--name is that of the table; use --out"),
        (("swag", "--checkpoint", "w.pth"), "checkpoint is one file for 3 runs; name one (swag/b_384, "),
        (("digits", "--weights", "nowhere"), "--weights nowhere: no such folder"),
        (("digits", "--speed", "--budget", "none"), "budget none times nothing"),
    ],
)
def test_bad_input_is_one_line(program, tmp_path, arguments, message):
    (tmp_path / "one.yaml").write_text("checkpoint: w.pth\n")
    result = program("reproduce", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.error


def test_several_processes_are_told_what_to_do(program, monkeypatch):
    for name, value in (("MASTER_ADDR", "localhost"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    result = program("reproduce", "digits")
    assert result.code == 2
    assert "tomebench sweep --nproc-per-node N --config paper/TABLE/RUN --out results/paper-TABLE/RUN" in result.error


def test_the_folder_of_another_configuration_is_refused(program, quick_sweeps):
    assert program(*TOP1_ONLY, "--r", "0", "--limit", "5").code == 4
    result = program(*TOP1_ONLY, "--r", "0", "--limit", "6")
    assert result.code == 2
    assert str(Path("results/paper-digits/vit")) in result.error
