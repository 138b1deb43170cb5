"""The screen: plain where it must be plain, literal everywhere, lines for logs and bars for terminals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from cli_program import BASE
from rich.console import Console

from tomebench.cli.console import Screen, open_screen
from tomebench.cli.progress import Lines, follow
from tomebench.sweeps.events import Finished, Note, Phase, Planned, Progress

EVENTS = [
    Phase("load", None),
    Planned(3, "vit.tag", 2, 1),
    Note("weights [r=8] /x"),
    Phase("timing", 4.0),
    Progress("timing", 2.0, 4.0, "rounds", "±2.0%"),
    Finished((BASE,), Path("runs/x")),
]


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, highlight=False, emoji=False)


def test_data_is_printed_literally(capsys):
    screen = open_screen()
    screen.line("runs/[r=8]/[bold]x[/bold] :smile: \x1b[31m\n")
    screen.table(("r", "path"), [("8", "[red]a|b[/red]\n")])
    out = capsys.readouterr().out
    assert "runs/[r=8]/[bold]x[/bold] :smile: \\x1b[31m\\n" in out
    assert "[red]a|b[/red]\\n" in out
    assert "\x1b" not in out


def test_a_long_line_or_table_is_never_cut(capsys):
    screen = open_screen()
    screen.line("word " * 100 + "end")
    screen.table(("a", "b"), [("x" * 150, "y" * 150)])
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[:7]) == "word " * 100 + "end"
    assert lines[7:] == ["a", "    " + "x" * 150 + ",", "    b", "    " + "y" * 150], (
        "a paragraph for a row that fits no screen"
    )


def test_numbers_to_the_right_words_to_the_left(capsys):
    open_screen().table(("r", "notes"), [("0", "a"), ("16", "long one")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [" r  notes", "─" * 12, " 0  a", "16  long one"]


@pytest.mark.parametrize("value", ["1", "anything"])
def test_no_color_means_no_escape_code_at_all(monkeypatch, value):
    monkeypatch.setenv("NO_COLOR", value)
    assert open_screen().out.color_system is None
    assert open_screen().err.color_system is None


def test_json_refuses_what_is_no_number(capsys):
    open_screen().object({"a": [1, None, "ä"]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None, "ä"]}
    with pytest.raises(ValueError, match="JSON"):
        open_screen().object({"a": float("nan")})


def test_a_log_gets_plain_lines(capsys):
    finished = follow(EVENTS, open_screen())
    out, err = capsys.readouterr()
    assert finished == EVENTS[-1]
    assert out == ""
    assert err.splitlines() == [
        "vit.tag: 3 cells, going on after 2 timed rounds and 1 evaluated batch",
        "weights [r=8] /x",
        "timing ...",
    ]


def test_quiet_says_nothing(capsys):
    follow(EVENTS, open_screen(quiet=True))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar():
    screen = Screen(terminal(), terminal())
    follow(EVENTS, screen)
    shown = screen.err.file.getvalue()
    assert "2 of 4 rounds" in shown
    assert "±2.0%" in shown
    assert "weights [r=8] /x" in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown.split("±2.0%")[-1], "the cursor stays hidden"
    assert screen.out.file.getvalue() == ""


def test_a_terminal_is_left_clean_when_the_engine_raises():
    def events():
        yield EVENTS[3]
        raise RuntimeError("stop")

    screen = Screen(terminal(), terminal())
    with pytest.raises(RuntimeError, match="stop"):
        follow(events(), screen)
    assert "\x1b[?25h" in screen.err.file.getvalue()


def test_an_engine_that_never_finishes_is_a_bug():
    with pytest.raises(RuntimeError, match="without a result"):
        follow(EVENTS[:-1], open_screen(quiet=True))


def test_lines_come_every_ten_seconds_with_the_time_left():
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    lines.phase(Phase("timing", 100.0))
    for now in (0.0, 5.0, 9.0, 12.0, 15.0, 24.0, 240.0):
        done = 10 + now / 2  # ten rounds were done by an earlier run
        lines.progress(Progress("timing", done, 100.0 if now < 200 else 1010.0, "rounds", ""))
    assert said == [
        "timing ...",
        "timing: 16 of 100 rounds, about 3 min left",
        "timing: 22 of 100 rounds, about 3 min left",
        "timing: 130 of 1010 rounds, about 29 min left",
    ]


def test_lines_without_a_total():
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    lines.phase(Phase("load", None))
    for now in (1.0, 20.0):
        lines.progress(Progress("load", now, None, "files", "a.safetensors"))
