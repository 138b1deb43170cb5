"""Every command's screen fits: at 40 to 120 columns, piped and on a terminal, with colours and without."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_program import BASE, MERGED
from screens import assert_fits, assert_whole_rows, plain, pseudo_terminal, tables
from test_cli_profile import REPORT

from tomebench.cli import app
from tomebench.cli.layout import command_lines, wrapped
from tomebench.report import several
from tomebench.runs.origin import Origin
from tomebench.runs.row import Row
from tomebench.sweeps import profile as profiling
from tomebench.sweeps.config_files import load_config

WIDE = "500"
_MEASURED: dict[str, Any] = {
    "dataset": "digits", "n_seen": 599, "top1": 96.49, "top1_lo": 94.7, "top1_hi": 97.7, "delta_top1": -0.83,
    "delta_top1_lo": -1.16, "delta_top1_hi": 0.18, "latency_p50_ms": 3.14159, "latency_p95_ms": 12.0,
    "img_per_s_end_to_end": 99.9, "speedup_ceiling": 1.4, "merge_overhead": 2.1, "merge_overhead_lo": 1.5,
    "merge_overhead_hi": 2.8, "speedup_vs_unwrapped": 1.2, "mac_ratio": 1.6,
}  # fmt: skip
ALL = ("NOISY", "DRIFT", "SLOW_FIRST", "CPU_BUSY", "UNWATCHED", "SAME_AS_R8")


def sweep_rows(**changes: Any) -> list[Row]:
    """Rows with everything that can stand in a table, and more to say about them than a screen holds."""
    merged = [replace(MERGED, r=r, **_MEASURED, status="unconverged", clamped=r > 12) for r in (8, 12, 16)]
    rows = [replace(BASE, **_MEASURED), *merged, replace(merged[0], r=20, warnings=ALL)]
    return [replace(row, **changes) for row in rows]


RUNS = {
    "plain": [BASE, MERGED],
    "all": sweep_rows(),
    "bf16": sweep_rows(dtype="bf16"),
    "weights": sweep_rows(weights="sha256:" + "ab" * 32),
    "elsewhere": sweep_rows(testbed="another machine with a name of its own, 64 threads on 128 CPUs, torch 2.14.1"),
    "broken": [BASE, replace(MERGED, status="failed", error="RuntimeError: " + "shapes differ " * 20)],
    "biased": sweep_rows(warnings=("AA_FAILED", "SOMETHING_NEW")),
    "a path with spaces in it": sweep_rows(),
}
SCREENS = [
    *(("report", name) for name in RUNS),
    ("report", "all", "bf16"),
    ("report", "all", "weights"),
    ("report", "all", "elsewhere"),
    ("report", "all", "all/../plain", "weights"),
    ("profile", "--model", "m", "--quiet"),
    ("plan", "--model", "deit_ti_16", "--r", "0,8,200"),
    ("list", "models"),
    ("list", "models", "deit_tiny"),
    ("list", "methods"),
    ("list", "datasets"),
    ("list", "papers"),
    ("list", "papers", "third_party"),
    ("doctor", "--device", "cuda:99", "--threads", "9999", "--model", "vit_b_61"),
    ("reproduce", "--list"),
    ("reproduce", "digits", "--static", "--r", "0,8"),
]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder in which the runs above seem to be, and a profile that takes no time."""
    monkeypatch.chdir(tmp_path)
    config = load_config([], {"model": "vit_tiny"}).stored()
    stored = {name: several.StoredRun(rows, config, 1.0, Origin({}, None, {})) for name, rows in RUNS.items()}
    monkeypatch.setattr(several, "read_run", lambda path: stored[path.resolve().name])
    monkeypatch.setattr("tomebench.report.write.speed_accuracy_figure", lambda *arguments, **_: "no figure")

    def run_profile(config: object, should_stop: object) -> Any:
        yield profiling.Phase("timing", 6.0)
        return REPORT

    monkeypatch.setattr(profiling, "run_profile", run_profile)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The screen of a command at a width, piped."""

    def call(arguments: Sequence[str], width: int | str) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        assert app.run(arguments) in (0, 2)
        return capsys.readouterr().out

    return call


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("arguments", SCREENS, ids=" ".join)
def test_every_screen_fits(arguments: Sequence[str], show: Callable[..., str]) -> None:
    wide = show(arguments, WIDE)
    for width in (120, 80, 60, 40):
        shown = show(arguments, width)
        assert_fits(shown, width)
        assert_whole_rows(shown, wide)
        assert "\x1b" not in shown
    if arguments[0] != "doctor":
        shown = show((*arguments, "--details"), 80)
        assert_fits(shown.replace("…", ""), 80)  # which shortens a checksum
        assert_whole_rows(shown, show((*arguments, "--details"), WIDE))


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("no_color", ["", "1"])
@pytest.mark.parametrize("arguments", [("report", "all"), ("report", "all", "--details"), ("list", "models")])
def test_a_terminal_shows_the_same_in_colour_or_without(arguments, no_color, show, monkeypatch) -> None:
    piped = show(arguments, 80)
    monkeypatch.setenv("NO_COLOR", no_color)
    with pseudo_terminal() as shown:
        assert app.run(arguments) == 0
    (text,) = shown
    assert "\n".join(map(plain, text.splitlines())) == piped.rstrip("\n")
    assert ("\x1b[1m" in text) == (not no_color and arguments[0] == "report"), "the answer is bold"
    colours = set(text.split("\x1b[")[1:]) and {code.partition("m")[0] for code in text.split("\x1b[")[1:]}
    assert colours <= {"0", "1", "1;33"}, "bold, and yellow for the mark of a warning: they can be read on any ground"
    assert not (no_color and colours)


def test_sweep_and_demo_end_with_the_same_screen(show, engine, monkeypatch, tmp_path) -> None:
    engine(*RUNS["all"])
    monkeypatch.chdir(tmp_path)
    for command in (("sweep", "--model", "vit_tiny", "--quiet"), ("demo", "--quiet")):
        for width in (80, 60):
            shown = show(command, width)
            assert_fits(shown, width)
            assert tables(shown) == [5]


@pytest.mark.usefixtures("stored")
def test_the_answer_comes_first_and_at_most_three_remarks(show: Callable[..., str]) -> None:
    lines = show(("report", "all"), 80).splitlines()
    assert lines[1].startswith(("r=", "Nothing"))
    assert lines.index("") < lines.index(next(line for line in lines if "speed-up" in line and " Δ" in line))
    remarks = [line for line in lines if line.startswith("! ")]
    assert len(remarks) == 3
    assert all(len(line) <= 80 for line in remarks)
    (more,) = [line for line in lines if line.startswith("and ")]
    assert more.startswith("and 5 more (")
    details = show(("report", "all", "--details"), 80)
    assert details.count("\n! ") == 8
    assert "\ntestbed: " in details
    assert "Against the unwrapped model" in details


@pytest.mark.usefixtures("stored")
def test_columns_go_in_the_stated_order(show: Callable[..., str]) -> None:
    order = ["GMACs", "±", "p50 ms", "the interval of the overhead", "ceiling", "overhead", "end-to-end", "tokens"]
    order += ["img/s", "p95 ms", "top-1", "notes"]
    seen = set()
    for width in range(40, 200, 4):
        shown = " ".join(show(("report", "all"), width).split())
        lost = shown.partition("left out ")[2].partition(": --details")[0].split(", ") if "left out " in shown else []
        assert lost == order[: len(lost)]
        seen.add(len(lost))
        if lost or "r 8, " not in shown:
            assert all(head in shown for head in ("speed-up [95%]", "Δ vs r=0 [95%]"))
    assert {0, len(order)} <= seen
    assert len(seen) > 6


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_command_stays_one_command(width: int) -> None:
    command = "tomebench sweep --model vit_b_16 --checkpoint 'my weights.pth' --r 0..24 --data DIR --no-prop-attn " * 2
    lines = command_lines(command.strip(), width)
    assert len(lines) > 1
    assert max(map(len, lines)) <= width
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
    assert not any(line.strip().startswith(("0..24", "DIR", "vit_b_16")) for line in lines), "a flag lost its value"


def test_words_and_paths_stay_whole() -> None:
    path = "results/a path/with spaces/" + "x" * 70
    assert wrapped(f"written to {path}: table.csv", 40, whole=[path]) == ["written to", f"{path}:", "table.csv"]
    assert wrapped("the interval is [1.23, 1.45] at r = 8", 30) == ["the interval is [1.23, 1.45]", "at r = 8"]


def test_without_unicode_a_screen_fits_too(show, monkeypatch, stored) -> None:
    from rich.console import Console

    monkeypatch.setattr(Console, "encoding", "ascii")
    shown = show(("report", "all"), 80)
    assert shown.isascii()
    assert_fits(shown, 80)


def test_each_check_fails_where_it_should() -> None:
    with pytest.raises(AssertionError, match="81 columns of 80"):
        assert_fits("fits\n" + "word " * 16 + "w", 80)
    assert_fits("x" * 90, 80)
    with pytest.raises(AssertionError, match="cut"):
        assert_fits("some wor…", 80)
    whole = "r  notes\n────────\n0  a\n8  b c\n\nend"
    assert tables(whole) == [2]
    assert_whole_rows(whole, whole)
    with pytest.raises(AssertionError, match="instead of"):
        assert_whole_rows(whole.replace("b c", "b\n   c"), whole)
    with pseudo_terminal() as shown:
        print("a \x1b[1mb\x1b[0m")
    assert shown == ["a \x1b[1mb\x1b[0m\n"]
