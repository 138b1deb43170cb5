"""Names and files from strangers through the command line: inert wherever they are shown, and no network unasked."""

from __future__ import annotations

import csv
import re
import socket
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from check_runs import edit
from cli_program import BASE, MERGED
from fault_runs import EVERY_PHASE

from tomebench.gate.baseline_file import read_baseline

NAMES = ["=HYPERLINK(1)", "a|b<script>", "::error::x", "\x1b[31mred\x07", "x\n::error::y"]


def assert_inert(text: str) -> None:
    """No control character, no workflow command, in any line of a log."""
    for line in text.splitlines():
        assert line.isprintable()
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_assert_inert_can_fail():
    assert_inert("fine: ::error::x\n")
    for text in ("\x1b[31m", " ::error::x", "a\n::error::x"):
        with pytest.raises(AssertionError):
            assert_inert(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_table_is_inert_in_every_file_and_on_the_terminal(program, engine, name):
    engine(*(replace(row, model=name, dataset=name, testbed=name, error=name) for row in (BASE, MERGED)))
    result = program("sweep", "--model", "m", "--out", "run")
    assert result.code == 0
    assert_inert(result.out)
    assert_inert(result.err)
    with Path("run/table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert not row["model"].startswith(("=", "+", "-", "@"))
        assert_inert(row["model"])
    summary = Path("run/summary.md").read_text()
    assert_inert(summary)
    shown = "".join(line for line in summary.splitlines() if not line.startswith("    "))
    assert "<script>" not in shown
    assert "a|b" not in shown


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_baseline_is_inert_in_a_workflow(program, its_baseline, monkeypatch, name):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    old = read_baseline(its_baseline).cells[-1]
    edit(its_baseline, asked=old.asked.model_copy(update={"model": name}))
    result = program(
        "check", "run", "--baseline", "base.json", "--accuracy", "--quiet", "--github", "--junit", "j.xml"
    )  # fmt: skip
    assert result.code == 4
    commands = [line for line in result.out.splitlines() if line.startswith("::")]
    assert all(re.match(r"::(error|warning|notice) title=tomebench[ a-z]*::", line) for line in commands)
    assert_inert("\n".join(line for line in result.out.splitlines() if line not in commands))
    assert all(line.isprintable() for line in commands)
    summary = Path("summary.md").read_text()
    assert_inert(summary)
    assert "<script>" not in summary
    ElementTree.parse("j.xml")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_no_network_notices_a_connection(no_network):
    with pytest.raises(pytest.fail.Exception, match="the network was asked"):
        socket.create_connection(("localhost", 1))


@pytest.mark.parametrize(
    "command",
    [
        EVERY_PHASE,
        ("plan", "--model", "vit_b_16", "--r", "0,8"),
        ("doctor", "--model", "digits_vit", "--data", "digits"),
        ("list", "models"),
    ],
    ids=lambda command: command[0],
)
def test_what_needs_no_weights_from_elsewhere_asks_no_network(program, quick_sweeps, no_network, command):
    assert program(*command).code == 0
