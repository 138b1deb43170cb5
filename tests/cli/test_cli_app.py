"""The program as a whole: help, exit codes, one line for every error."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shlex
import subprocess
import sys
from typing import get_args

import pytest
import typer
from cli_program import Result

import tomebench
from tomebench.cli import app
from tomebench.cli.launch import LaunchFlags
from tomebench.cli.limits import limit_behind
from tomebench.errors import InputError, Interrupted, StorageError
from tomebench.runs.facets import Panel
from tomebench.runs.settings import default, settings

COMMANDS = (
    "demo", "sweep", "ablate", "reproduce", "plan", "profile", "train-predictors", "check", "report", "compare", "list",
    "doctor",
)  # fmt: skip
HEAVY = ("torch", "timm", "pandas", "numpy", "pydantic", "matplotlib", "torchvision")


def command_tree():
    return typer.main.get_command(app.app)


def test_the_helper_notices_a_second_line():
    with pytest.raises(AssertionError):
        _ = Result(2, "", "one\ntwo\n").error
    assert Result(2, "", "one\n").error == "one"


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["sweep", "--help-all"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    heavy = [
        name for name in HEAVY if name != "pydantic" or len(arguments) == 1
    ]  # typer needs it for a command's flags
    code = (
        "import sys; from tomebench.cli.app import run; "
        f"code = run({arguments!r}); heavy = [m for m in {heavy!r} if m in sys.modules]; "
        "print(heavy, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")


@pytest.mark.bench
def test_help_is_there_within_four_tenths_of_a_second():
    seconds = []
    for _ in range(3):  # of processor time; the first may compile
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "tomebench", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"--help: {min(seconds):.2f} s")
    assert min(seconds) <= 0.4


def test_python_m_tomebench_is_the_program():
    done = subprocess.run([sys.executable, "-m", "tomebench", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: python -m tomebench ")


def test_no_command_shows_the_help(program):
    assert program() == program("--help")


def test_the_help_names_every_command_and_exit_code(program):
    out = program("--help").out
    for command in COMMANDS:
        assert f"\n  {command} " in out
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f" {code}  " in out
    assert "..." not in out.split("Commands:")[1], "a summary is cut"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_it_accepts(name, program):
    help_ = program(name, "--help").out
    examples = [line.partition("Example: ")[2] for line in help_.splitlines() if "Example: " in line]
    assert examples
    for example in examples:
        prog, command, *arguments = shlex.split(example.partition("-m -- ")[2] or example)
        assert (prog, command) == ("tomebench", name)
        command_tree().commands[name].make_context(name, arguments)


def test_version(program):
    assert program("--version") == Result(0, f"tomebench {tomebench.__version__}\n", "")


def test_flags_are_the_settings_and_show_their_defaults():
    params = {param.name: param for param in command_tree().commands["sweep"].params}
    others = {"config", "details", "json", "quiet", "traceback", "help_all"}
    others |= {each.name for each in dataclasses.fields(LaunchFlags)} - {"given"}
    assert [*params][: len(settings())] == [*settings()]
    assert {*params} - {*settings()} == others
    for name in settings():
        option, usual = params[name], default(name)
        assert option.opts[0] == f"--{name.replace('_', '-')}"
        assert option.default is None
        if isinstance(usual, str | int) and not isinstance(usual, bool):
            assert option.help.endswith(f"[default: {usual}]")
        elif isinstance(usual, float):
            assert option.help.endswith(f"[default: {usual:g}]")
        elif usual is True:
            assert option.help.endswith(f"[default: {name.replace('_', '-')}]")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["swep"], "'sweep'"),
        (["sweep", "--modle", "x"], "--model"),
        (["sweep", "--limit", "many"], "--limit"),
        (["sweep", "--model"], "--model"),
        (["report"], "RUN"),
        (["sweep"], "--model vit_b_16"),
        (["sweep", "--model", "m", "--r", "4..1"], "runs backwards"),
        (["sweep", "--model", "m", "--max-drop", "101"], "--max-drop 101.0: use a number of points of top-1"),
        (["report", "run", "--max-drop", "nan"], "--max-drop nan: use a number of points of top-1, from 0 to 100"),
        (["sweep", "--model", "m", "--dtype", "fp8"], "--dtype 'fp8': use fp32"),
        (["demo", "--config", "no.yaml"], "config 'no.yaml' cannot be read"),
        (["list", "modles"], "use models, methods, datasets, papers"),
        (["list", "papers", "nothing"], "no reported table with 'nothing' in its name"),
        (["report", "runs/[r=8]/x"], "runs/[r=8]/x"),
        (["sweep", "--model", "m", "--name", "a\n/b\x1b[31m"], r"a\n/b\x1b[31m"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(program, arguments, part):
    result = program(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith("tomebench: error: ")
    assert part in result.error


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (InputError("no [r=8]. use another"), 2, "tomebench: error: no [r=8]. use another"),
        (InputError("two\nlines \x1b[31m"), 2, r"two lines \x1b[31m"),
        (StorageError("the disk is full"), 5, "error: the disk is full"),
        (OSError(28, "No space left on device", "a/b"), 5, "cannot read or write 'a/b': No space left on device"),
        (OSError("odd"), 5, "cannot read or write: odd"),
        (Interrupted("stopped"), 130, "go on with: tomebench sweep --model 'm n'"),
        (ZeroDivisionError("oops"), 1, "this is a bug: ZeroDivisionError: oops. --traceback shows where"),
        (RuntimeError("long " * 1000), 1, "this is a bug"),
    ],
)
def test_every_error_is_one_line_with_its_exit_code(program, engine, error, code, part):
    engine(error=error)
    result = program("sweep", "--model", "m n", "--quiet")
    assert (result.code, result.out) == (code, "")
    assert part in result.error
    assert len(result.error) < 700


@pytest.mark.parametrize("error", [InputError("bad"), ZeroDivisionError("oops")])
def test_traceback_shows_where_an_error_came_from(program, engine, error):
    engine(error=error)
    result = program("sweep", "--model", "m", "--quiet", "--traceback")
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("tomebench: ")
    assert "--traceback shows" not in result.err


def test_a_pipe_closed_by_its_reader_is_no_bug():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "tomebench", "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (5, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_under_stdout_is_one_line(unbuffered):
    command = [sys.executable, "-m", "tomebench", "--help"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_under_stderr_loses_what_is_said_and_no_result(tmp_path):
    """The screen is only a copy of what is in the folder."""
    words = "sweep --model digits_vit --r 0,8 --device cpu --data digits --limit 6 --budget none --out run"
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "tomebench", *words.split()]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path)
    assert done.returncode == 0
    assert b"digits_vit" in done.stdout
    assert (tmp_path / "run" / "table.csv").read_text().count("\n") == 3
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        refused = subprocess.run([*command[:3], "list", "nothing"], stdout=subprocess.PIPE, stderr=full)
    assert (refused.returncode, refused.stdout) == (2, b"")


def test_a_stderr_that_nobody_reads_or_that_is_closed_changes_nothing(tmp_path):
    words = [sys.executable, "-m", "tomebench", "list", "columns"]
    plain = subprocess.run(words, capture_output=True, cwd=tmp_path)
    read, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, bytes(4096)):
            pass
    unread = subprocess.run(words, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path)
    os.close(read)
    os.close(full)
    assert (unread.returncode, len(unread.stdout)) == (0, len(plain.stdout))
    shell = " ".join([*words[:3], "report", "nowhere", "2>&-"])
    closed = subprocess.run(shell, shell=True, capture_output=True, cwd=tmp_path)
    assert (closed.returncode, closed.stdout) == (2, b"")


def test_an_ascii_terminal_gets_escapes_instead_of_a_crash():
    done = subprocess.run(
        [sys.executable, "-m", "tomebench", "report", "ä"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert rb"\xe4" in done.stderr


def shown(program, monkeypatch, *arguments):
    """The lines of a help screen, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    result = program(*arguments)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 80
    return lines


def test_the_help_of_a_sweep_fits_two_screens_in_panels(program, monkeypatch):
    lines = shown(program, monkeypatch, "sweep", "--help")
    assert len(lines) <= 80
    assert [line.rstrip(":") for line in lines if line and line[0] != " "][1:] == [*get_args(Panel), "Help"]
    whole = shown(program, monkeypatch, "sweep", "--help-all")
    assert len(whole) > 80  # or there would be nothing to hide
    assert {line.split()[0] for line in lines if line.startswith("  --")} < {
        line.split()[0] for line in whole if line.startswith("  --")
    }


@pytest.mark.parametrize("name", ["demo", "sweep", "ablate", "reproduce", "plan", "profile"])
def test_every_flag_has_its_panel_and_all_are_shown_by_help_all(name, program, monkeypatch):
    out = "\n".join(shown(program, monkeypatch, name, "--help-all"))
    params = command_tree().commands[name].params
    for param in params:
        if param.param_type_name == "option":
            assert f"\n  {param.opts[0]} " in out
    own = {*settings(), *(f.name for f in dataclasses.fields(LaunchFlags))} & {param.name for param in params}
    for param in params:
        assert (getattr(param, "rich_help_panel", None) in get_args(Panel)) == (param.name in own)


def test_a_flag_that_the_help_hides_is_taken_all_the_same(program, engine):
    engine()
    assert "--threads" not in program("sweep", "--help").out
    assert program("sweep", "--model", "m", "--threads", "2", "--quiet").code == 0


@pytest.mark.parametrize("mib", [900, 2400])
def test_a_limit_of_the_address_space_is_named(mib):
    """Under it a library cannot be loaded, which would look like a bug."""
    command = f"ulimit -v {mib * 1024}; exec {sys.executable} -m tomebench sweep --model test_vit --r 0 --budget quick"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert f"is limited to {mib} MiB (ulimit -v), which is too little" in line


def test_without_a_limit_an_error_is_what_it_is():
    assert limit_behind(MemoryError()) is None
