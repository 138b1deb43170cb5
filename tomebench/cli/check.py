"""``tomebench check``: the regression gate; compare a run with a stored baseline, for people and for CI."""

from __future__ import annotations

import dataclasses
import datetime
import json as json_
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import Details, Json, Quiet, Traceback
from tomebench.cli.outputs import writable
from tomebench.errors import InputError, Interrupted, TomebenchError
from tomebench.whole import append, write_whole
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.gate.compare import Limits
    from tomebench.gate.judge import Judgement
    from tomebench.gate.records import Snapshot, Tier
    from tomebench.gate.verdict import Finding


def check(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder; not needed for --static.")] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="The baseline to compare with, or to write.", metavar="FILE")
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Tokens, GMACs, logits: no device, no data.")] = False,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Which images are right.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Speed-ups within a run.")] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Slow-down that is still the same, in %.", metavar="PERCENT")
    ] = 5.0,
    max_drop: Annotated[
        str,
        typer.Option(
            "--max-drop", help="A loss of top-1 that is not sure passes up to 0.5 (points) or 3images.", metavar="N"
        ),
    ] = "0.5",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare img/s too, on the baseline's own testbed only.")
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm/--no-confirm", help="Measure a slow-down again before saying so.")
    ] = True,
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline", help="Write RUN as the baseline; without RUN, bring its --static tier up to date."
        ),
    ] = False,
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Measure RUN again and print the noise floor of its speed-ups.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Where the weights are on this machine.", metavar="FILE")
    ] = None,
    json: Json = False,
    details: Details = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write a JUnit file.", metavar="FILE")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Write the step summary and annotations of GitHub Actions.")
    ] = False,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            "--benchmark", help="Write RUN for github-action-benchmark (customBiggerIsBetter).", metavar="FILE"
        ),
    ] = None,
    bencher: Annotated[
        Path | None, typer.Option("--bencher", help="Write RUN in Bencher Metric Format.", metavar="FILE")
    ] = None,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Has anything become worse than a baseline?

    Example: tomebench check results/demo --baseline results/baselines/demo.json

    Example: tomebench check --static --baseline results/baselines/demo.json

    Three tiers: static (what the model computes, on any machine), accuracy (the same images, one by one),
    speed (ratios within a run). Without a choice, all that the baseline has. Exit 0 only if everything was compared
    and nothing is worse; 3 if something is; 4 if something cannot be told.
    """
    from tomebench.cli.console import open_screen
    from tomebench.gate.compare import Limits, exit_code
    from tomebench.gate.compare_accuracy import MaxDrop
    from tomebench.gate.compare_speed import SpeedLimits
    from tomebench.gate.judge import judge

    screen = open_screen(as_json=json, quiet=quiet, details=details)
    chosen = {"static": static, "accuracy": accuracy, "speed": speed}
    tiers: tuple[Tier, ...] = tuple(tier for tier, wanted in chosen.items() if wanted)  # type: ignore[misc]
    limits = Limits(SpeedLimits(tolerance / 100, absolute), MaxDrop.parse(max_drop))
    reports = _Reports(junit, github, benchmark, bencher)
    if update_baseline or self_check:
        if reports.wanted:
            raise InputError("--junit, --github, --benchmark and --bencher are of a comparison; leave them out here")
        if not update_baseline and baseline is not None:
            raise InputError(
                "--self-check compares a run with itself: leave --baseline out, or add --update-baseline to keep the "
                "noise floor in FILE"
            )
        if update_baseline and baseline is None:
            raise InputError("where to? add --baseline FILE")
        if update_baseline and baseline is not None:
            writable("--baseline", baseline)
        _update(screen, run, baseline, tiers, limits, floor=self_check, checkpoint=checkpoint)
        return
    if baseline is None:
        raise InputError("no baseline is given; add --baseline FILE")
    try:
        judgement = judge(
            run, baseline, tiers, limits, confirm=confirm, checkpoint=checkpoint, say=screen.note, watch=stop_on_signal
        )
    except Interrupted:
        raise
    except (TomebenchError, OSError) as error:
        with suppress(OSError):  # the error itself is what matters
            reports.write(screen, (), None, str(run or baseline), trouble=str(error))
        raise
    code = exit_code(judgement.findings)
    _show(screen, judgement, code, baseline=baseline, run=run)
    reports.write(screen, judgement.findings, judgement.snapshot, _subject(judgement.snapshot), judgement.remarks)
    if code:
        raise typer.Exit(code)


def _update(
    screen: Screen,
    run: Path | None,
    to: Path | None,
    tiers: tuple[Tier, ...],
    limits: Limits,
    *,
    floor: bool,
    checkpoint: Path | None,
) -> None:
    """Write a run as the baseline ``to``, or print the noise floor of its speed-ups (``--self-check``), or both."""
    from tomebench.gate.update import measure_baseline, refresh_baseline

    if floor and tiers and "speed" not in tiers:
        raise InputError("--self-check is about speeds; add --speed, or leave the tiers out")
    if run is not None:
        update = measure_baseline(
            run, to, tiers, limits, floor=floor, checkpoint=checkpoint, say=screen.note, watch=stop_on_signal
        )
    elif to is not None and tiers == ("static",) and not floor:
        update = refresh_baseline(to, limits, checkpoint=checkpoint, say=screen.note)
    else:
        raise InputError("which run? --self-check and --update-baseline need its folder, unless only --static is asked")
    doubts = update.doubts
    if screen.as_json:
        about = {"noise_floor": update.noise_floor, "written": None if to is None else str(to)}
        screen.object({**about, "tiers": list(update.snapshot.tiers()), "doubts": list(doubts)})
        return
    if update.noise_floor is not None:
        screen.line(f"noise floor of the speed-ups: {100 * update.noise_floor:.1f} %; --tolerance must be above it")
    if to is not None:
        screen.line(
            f"written: {to} ({counted(len(update.snapshot.cells), 'cell')}: {', '.join(update.snapshot.tiers())})",
            whole=[str(to)],
        )
    screen.remarks([("", doubt) for doubt in doubts], doubts)


def _subject(snapshot: Snapshot) -> str:
    return snapshot.cells[0].asked.model


def _show(screen: Screen, judgement: Judgement, code: int, *, baseline: Path, run: Path | None) -> None:
    from tomebench.report.verdicts import FULL_TEXT, NARROWER, advice, details, last_line, verdict_table

    if screen.as_json:
        screen.object(
            {
                "baseline": str(baseline),
                "run": None if run is None else str(run),
                "exit_code": code,
                "outcome": last_line(judgement.findings),
                "tiers": list(judgement.tiers),
                "findings": [dataclasses.asdict(finding) for finding in judgement.findings],
                "remarks": list(judgement.remarks),
            }
        )
        return
    screen.line(last_line(judgement.findings), style="bold")
    headers, rows = verdict_table(judgement.findings)
    lost = []
    if rows:
        screen.line()
        lost = screen.table(headers, rows, left=headers, steps=NARROWER, keys=headers[:2])
        screen.line()
    said = [*judgement.remarks, *details(judgement.findings, lost), *advice(judgement.findings)]
    screen.remarks([("", line) for line in said], said, [head for head in lost if head != FULL_TEXT])


@dataclass(frozen=True)
class _Reports:
    """Further outputs of the gate: JUnit and benchmark files, and the summary and annotations of GitHub Actions.

    Raises:
        InputError: ``--github`` outside of GitHub Actions, or a file that cannot be written.
    """

    junit: Path | None
    github: bool
    benchmark: Path | None
    bencher: Path | None

    def __post_init__(self) -> None:
        if self.github and not os.environ.get("GITHUB_STEP_SUMMARY"):
            raise InputError("--github writes to the file that GITHUB_STEP_SUMMARY names, as GitHub Actions sets it")
        files = {"--junit": self.junit, "--benchmark": self.benchmark, "--bencher": self.bencher}
        if self.github:
            files["GITHUB_STEP_SUMMARY"] = Path(os.environ["GITHUB_STEP_SUMMARY"])
        for flag, path in files.items():
            if path is not None:
                writable(flag, path)

    @property
    def wanted(self) -> bool:
        return self.github or any(path is not None for path in (self.junit, self.benchmark, self.bencher))

    def write(
        self,
        screen: Screen,
        findings: Sequence[Finding],
        snapshot: Snapshot | None,
        subject: str,
        remarks: Sequence[str] = (),
        trouble: str | None = None,
    ) -> None:
        """Write all outputs; ``snapshot`` is that of the run, ``trouble`` says why nothing could be compared."""
        from tomebench.report.benchmark import bencher_metric_format, github_action_benchmark
        from tomebench.report.github import annotation_lines, step_summary
        from tomebench.report.junit import junit_xml

        now = datetime.datetime.now(datetime.UTC)
        if self.junit is not None:
            write_whole(self.junit, junit_xml(findings, subject=subject, now=now, trouble=trouble))
        if self.github:
            summary = step_summary(findings, subject=subject, remarks=remarks, trouble=trouble)
            append(Path(os.environ["GITHUB_STEP_SUMMARY"]), summary)
            for line in annotation_lines(findings, remarks=remarks, trouble=trouble):
                screen.command(line)
        if snapshot is not None and self.benchmark is not None:
            write_whole(self.benchmark, _json(github_action_benchmark(snapshot)))
        if snapshot is not None and self.bencher is not None:
            write_whole(self.bencher, _json(bencher_metric_format(snapshot)))


def _json(value: object) -> str:
    return json_.dumps(value, indent=1, allow_nan=False) + "\n"
