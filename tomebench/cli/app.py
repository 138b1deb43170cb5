"""Entry point of the command line: register the commands; turn any error into one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import tomebench
from tomebench.cli import (
    ablate,
    check,
    compare,
    demo,
    doctor,
    embed,
    features,
    fit,
    listing,
    plan,
    profile,
    recommend,
    report,
    reproduce,
    search,
    staircase,
    sweep,
    train,
)
from tomebench.cli.interrupt import leave_on_signal
from tomebench.cli.launch import program_name
from tomebench.cli.limits import limit_behind
from tomebench.cli.panels import PanelCommand
from tomebench.cli.streams import leave_unwritten, prepare_streams
from tomebench.errors import InputError, Interrupted, RankError, StorageError, TomebenchError
from tomebench.ranks.place import Place
from tomebench.report.escape import clean

_HELP = """What token merging does to the speed and accuracy of a Vision Transformer, measured on your own hardware.

Start with: tomebench demo

\b
Exit codes:
    0  done
    1  a bug in tomebench
    2  bad usage or input
    3  regression found, or something is not as reported
    4  nothing can be said (not comparable, no baseline, inconclusive, not
       measured)
    5  finished with failed cells, or storage, memory or one of several
       processes failed
  130  interrupted; the same sweep goes on where it stopped

Results go to stdout, progress to stderr. Bad input gets one line; --traceback after a command shows where it came from.
"""

_RESUMABLE = ("sweep", "recommend", "search", "demo", "ablate", "reproduce", "train-predictors")
"""Commands that can be continued after an interrupt."""

app = typer.Typer(help=_HELP, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("demo", cls=PanelCommand)(demo.demo)
app.command("sweep", cls=PanelCommand)(sweep.sweep)
app.command("recommend", cls=PanelCommand)(recommend.recommend)
app.command("search", cls=PanelCommand)(search.search)
app.command("ablate", cls=PanelCommand)(ablate.ablate)
app.command("reproduce", cls=PanelCommand)(reproduce.reproduce)
app.command("plan", cls=PanelCommand)(plan.plan)
app.command("profile", cls=PanelCommand)(profile.profile)
app.command("staircase", cls=PanelCommand)(staircase.staircase)
app.command("features", cls=PanelCommand)(features.features)
app.command("train-predictors")(train.train_predictors)
app.command("embed-classes")(embed.embed)
app.command("fit-head", cls=PanelCommand)(fit.fit_head)
app.command("check")(check.check)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("list")(listing.list_)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tomebench {tomebench.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit.

    Args:
        arguments: the command line without the program; None: that of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    leave_on_signal(None if Place.here().rank else _interrupted(arguments))
    sys.exit(run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit code. Any error is printed on stderr, in one line.
    """
    try:
        command = typer.main.get_command(app)
        with command.make_context(program_name(), list(arguments) or ["--help"]) as context:
            command.invoke(context)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:  # the reader of the pipe has closed it
        leave_unwritten()
        return StorageError.exit_code
    except (TomebenchError, typer.TyperException, OSError) as error:
        leave_unwritten()
        return _fail(error, arguments)
    except Exception as error:  # noqa: BLE001 (the command boundary)
        return _fail(error, arguments)
    return 0


def _fail(error: BaseException, arguments: Sequence[str]) -> int:
    """Print an error in one line on stderr, with --traceback after its traceback; returns the exit code."""
    shown = "--traceback" in arguments
    if shown and not isinstance(error, typer.TyperException):
        traceback.print_exception(error)
    if (
        Place.here().local_rank
        and isinstance(error, TomebenchError | typer.TyperException)
        and not isinstance(error, RankError)
    ):
        return error.exit_code  # another process prints it: the first to fail, or rank 0
    if not isinstance(error, TomebenchError) and (limit := limit_behind(error)) is not None:
        print(f"tomebench: error: {limit}", file=sys.stderr)  # noqa: T201
        return StorageError.exit_code
    match error:
        case RankError(quiet=True):
            return error.exit_code
        case Interrupted():
            print(_interrupted(arguments), file=sys.stderr)  # noqa: T201
            return error.exit_code
        case TomebenchError():
            code, text = error.exit_code, f"error: {error}"
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            path = context.command_path if context else program_name()
            code, text = InputError.exit_code, f"error: {error.format_message().rstrip('.')} (see: {path} --help)"
        case OSError(errno=errno.ENAMETOOLONG):
            name = os.fsdecode(error.filename or "")
            code, text = InputError.exit_code, f"error: no file can have the name {name!r:.200}; correct the path"
        case OSError():
            name = f" {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
            code = StorageError.exit_code
            text = f"error: cannot read or write{name}: {error.strerror or error}. check the disk and the permissions"
        case _:
            what = f"{type(error).__name__}: {error}"
            hint = "" if shown else ". --traceback shows where"
            code, text = TomebenchError.exit_code, f"this is a bug: {what.rstrip('.'):.500}{hint}"
    print(f"tomebench: {clean(' '.join(text.splitlines()))}", file=sys.stderr)  # noqa: T201
    return code


def _interrupted(arguments: Sequence[str]) -> str:
    """Line printed when the program is interrupted: the command that continues or repeats it."""
    again = clean(shlex.join([*program_name().split(), *arguments]))
    if arguments and arguments[0] in _RESUMABLE:
        return f"tomebench: interrupted; what was done is kept. go on with: {again}"
    return f"tomebench: interrupted; nothing was kept. again with: {again}"
