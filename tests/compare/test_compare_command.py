"""The command: what it prints for stored runs in every format, and one line for every error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from compare.made_runs import FIELD, write_run

from tomebench.cli import app


@pytest.fixture
def program(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run ``tomebench compare`` in a folder with the run ``a``."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", FIELD)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.run(["compare", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_the_screen_of_one_question(program: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = program("a", "--match", "drop=2")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "",
        "At equal accuracy: fastest with a drop of at most 2 points, 40 images",
        "method  point  tokens  GMACs  speed-up [95%]          drop [95%]  note",
        "─" * 80,
        "tome    -           -      -               -                   -  not reached",
        "greedy  r=4        57   0.92           1.09x  0.00 [-8.76, 8.76]  too few images",
        "the grid does not reach it: tome (least drop 2.50 [-6.48, 12.88] at r=4)",
        "too few images for greedy (about 189): the interval of the drop is wider than",
        "the question; that many are needed if rates stay",
        "",
        "left out top-1: --details",
        "speed-up: paired, over r=0; drop: points of top-1 lost against r=0 of tiny at 32",
        "px, on the same images; GMACs: without those of the method itself; intervals are",
        "95 %, each for itself",
        "cpu, fp32, batch 4",
    ]


def test_the_default_has_a_heading_a_question(program: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = program("a")
    heads = [line.partition(":")[0] for line in out.splitlines() if line.startswith(("At equal", "The front"))]
    assert code == 0
    assert [head.partition(" (")[0].partition(", 40")[0] for head in heads] == [
        "At equal accuracy",
        "At equal accuracy",
        "At equal tokens after the last block",
        "At equal MACs",
        "At equal measured speed",
        "The front of measured speed and top-1",
    ]


def test_the_order_of_runs_has_no_effect(program: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_run(tmp_path / "b", {("tome", 0): (), ("kmeans", 4): (7,)}, rounds=0)
    assert program("a", "b", "--tests", "--pareto") == program("b", "a", "--tests", "--pareto")


def test_two_timed_runs_are_compared_without_their_speeds(
    program: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_run(tmp_path / "b", {("tome", 0): (), ("kmeans", 4): (7,)})
    _, out, _ = program("a", "b")
    assert "measured speeds cannot be compared" in " ".join(out.split())
    assert "speed-up" not in out.replace("each speed-up is over", "")


def test_formats(program: Callable[..., tuple[int, str, str]]) -> None:
    assert program("a", "--format", "markdown")[1].startswith("# Comparison\n\n## At equal accuracy")
    assert program("a", "--format", "latex")[1].startswith("% needs \\usepackage{booktabs}")
    lines = list(csv.DictReader(io.StringIO(program("a", "--format", "csv", "--tests")[1])))
    assert [line["p_holm"] for line in lines] == ["1.0", "1.0"]
    found = json.loads(program("a", "--json", "--match", "tokens=57")[1])
    assert [entry["point"] for entry in found["entries"]] == ["r=4", "r=4"]
    assert found["remarks"] == []


def test_a_figure_is_written(program: Callable[..., tuple[int, str, str]]) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = program("a", "--figure", "made/f.png")
    assert code == 0
    assert "written: made/f.png" in out
    assert Path("made/f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "there is no run in nowhere"),
        (["a", "./a"], "a run folder is named twice"),
        (["a", "--match", "drop"], "how many points may be lost"),
        (["a", "--against", "gredy"], "did you mean 'greedy'"),
        (["a", "--tolerance", "-1"], "use a percentage from 0 to 100"),
        (["a", "--format", "html"], "use console, markdown, latex, csv"),
        (["a", "--format", "csv", "--json"], "drop one of them"),
        (["a", "--figure", "a"], "give a file that can be written"),
    ],
)
def test_bad_input_is_one_line(program: Callable[..., tuple[int, str, str]], arguments: list[str], says: str) -> None:
    code, out, err = program(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_without_images_accuracy_is_refused_and_costs_are_compared(
    program: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_run(tmp_path / "c", FIELD, images=None)
    code, _, err = program("c", "--match", "drop=1")
    assert (code, err.count("\n")) == (2, 1)
    assert "no run has top-1" in err
    code, out, _ = program("c")
    assert code == 0
    assert "At equal tokens" in out
    assert "At equal accuracy" not in out


def test_a_single_method_without_top_1_is_nothing_to_compare(
    program: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_run(tmp_path / "c", {("tome", 0): (), ("tome", 4): ()}, images=None)
    code, _, err = program("c")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is nothing to compare" in err


def test_no_pair_to_test_is_said(program: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_run(tmp_path / "c", {("tome", 0): (), ("tome", 4): (1,)})
    code, out, _ = program("c", "--tests")
    assert code == 0
    assert "no other line has rows of the same r and tokens" in out
