"""The quarter of an hour on a GPU, rehearsed on a CPU as real processes: nothing may stop it, and nothing be lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu import summary, wheels

from tomebench.report.frames import read_csv

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs" / "gpu_quarter.sh"
STEPS = re.findall(r"(\w+):\d+", re.search(r"^steps=\((.*?)^\)", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)[1])
SWEEPS = ["vit_b", "train", "vit_b_again"]
LEFT_OUT = ["vit_b_compiled", "vit_s_compiled", "vit_l_compiled"]
"""To save their time: without a GPU nothing is compiled."""
LIGHT = "wheels|machine|graphs|tests"


@dataclass(frozen=True)
class Quarter:
    """What a run of the script left."""

    code: int
    err: str
    out: Path

    @property
    def summary(self) -> str:
        return (self.out / "summary.txt").read_text()

    @property
    def verdicts(self) -> dict[str, str]:
        section = self.summary.partition("\nSteps\n")[2].partition("\n\n")[0]
        return dict(re.findall(r"^(\w+) +(\S+(?: \S+)?)  +", section, re.MULTILINE))


def start(out: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    command = ["bash", str(SCRIPT), "--dry-run", "--device", "cpu", "--out", str(out), *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTER_", "PYTEST_"))}
    environment = kept | {"PYTHON": sys.executable} | environment
    # What is started in the background ignores Ctrl-C, and so would a shell in it, whatever it traps.
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp('bash', sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", heed, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(out: Path, *flags: str, **environment: str) -> Quarter:
    process = start(out, *flags, **environment)
    _, err = process.communicate(timeout=3000)
    return Quarter(process.returncode, err, out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Quarter:
    """A dry run in which nearly every step is made."""
    made = "|".join(f"^{name}$" for name in STEPS if name not in LEFT_OUT)
    return run(tmp_path_factory.mktemp("whole"), "--total", "3000", ONLY=made)


@pytest.fixture(scope="module")
def unpacked(whole: Quarter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    for name in ("logs", "runs"):
        with tarfile.open(whole.out / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.mark.slow
def test_every_step_is_accounted_for_in_order(whole: Quarter) -> None:
    assert list(whole.verdicts) == STEPS
    made = whole.verdicts | {"wheels": "ok"}  # those of another Python are refused, and none may be there
    assert made == dict.fromkeys(STEPS, "ok") | dict.fromkeys([*LEFT_OUT, "graphs"], "skipped"), whole.summary
    assert re.search(r"^graphs .* needs CUDA$", whole.summary, re.MULTILINE)
    assert [line.split()[0] for line in whole.err.splitlines()] == STEPS


@pytest.mark.slow
def test_at_most_three_files_that_open_and_are_small(whole: Quarter, unpacked: Path) -> None:
    files = sorted(path.name for path in whole.out.iterdir())
    assert files == ["logs.tar.gz", "runs.tar.gz", "summary.txt"]
    assert all((whole.out / name).stat().st_size < 16 * 2**20 for name in files)
    logs = {path.stem for path in (unpacked / "logs").glob("*.log")}
    assert logs >= {name for name, verdict in whole.verdicts.items() if verdict == "ok"}
    assert (unpacked / "logs" / "tests.xml").exists()
    assert sorted(path.name for path in (unpacked / "runs").iterdir()) == sorted(SWEEPS)


@pytest.mark.slow
def test_the_figures_are_those_of_the_tables(whole: Quarter, unpacked: Path) -> None:
    for name in SWEEPS:
        section = whole.summary.partition(f"\n{name}: ")[2]
        for row in read_csv(unpacked / "runs" / name / "table.csv").itertuples():
            line = re.search(rf"^  r = {row.r}, (.*)$", section, re.MULTILINE)[1]
            assert f"{row.img_per_s:.1f} img/s" in line
            if row.r:
                low, high = row.speedup_vs_r0_lo, row.speedup_vs_r0_hi
                assert f"{row.speedup_vs_r0:.3f}x [{low:.3f}, {high:.3f}]" in line
    first, again = (read_csv(unpacked / "runs" / name / "table.csv") for name in ("vit_b", "vit_b_again"))
    ratio = again.img_per_s[0] / first.img_per_s[0]
    assert f"A/A r = 0: the second process over the first: img_per_s {ratio:.4f}" in whole.summary


@pytest.mark.slow
def test_a_packed_run_can_be_reported(unpacked: Path) -> None:
    command = [sys.executable, "-m", "tomebench", "report", str(unpacked / "runs" / "vit_b"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"r": 13' in done.stdout


@pytest.mark.slow
def test_every_defect_has_its_line(whole: Quarter) -> None:
    found = [int(number) for number in re.findall(r"^defect (\d+): undecided, .*\]$", whole.summary, re.MULTILINE)]
    assert sorted(found) == list(range(1, 25))


@pytest.mark.slow
def test_the_machine_and_the_routes_are_told(whole: Quarter) -> None:
    assert re.search(r"^Python 3\.\d+", whole.summary, re.MULTILINE)
    assert re.search(r"^torch 2\.\d+", whole.summary, re.MULTILINE)
    assert re.search(r"^matmul: \d+ img/s, \d+\.\d+x of auto", whole.summary, re.MULTILINE)


def test_a_step_that_hangs_and_one_that_crashes_stop_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, ONLY=LIGHT, QUARTER_HANG="wheels", QUARTER_CRASH="tests")
    assert (found.code, list(found.verdicts)) == (1, STEPS)
    made = {name: verdict for name, verdict in found.verdicts.items() if re.search(LIGHT, name)}
    assert made == {"wheels": "timed out", "machine": "ok", "tests": "failed", "graphs": "skipped"}
    assert re.search(r"^tests +failed .* exit code 139$", found.summary, re.MULTILINE)


def test_nothing_is_started_when_the_total_is_used_up(tmp_path: Path) -> None:
    found = run(tmp_path, "--total", "3", QUARTER_HANG="wheels")
    assert found.code == 1
    assert found.verdicts == {"wheels": "timed out"} | dict.fromkeys(STEPS[1:], "not started")
    assert re.search(r"^wheels +timed out +\d+ of +[123] s", found.summary, re.MULTILINE)  # what was left of the total


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_packs_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    process = start(out, QUARTER_CRASH="wheels", QUARTER_HANG="machine", TMPDIR=str(temporary))
    while process.poll() is None and not list(temporary.glob("*/logs/machine.log")):
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=300)
    found = Quarter(process.returncode, "", out)
    assert found.code == 130
    assert found.verdicts == {"wheels": "failed", "machine": "stopped"} | dict.fromkeys(STEPS[2:], "not started")
    assert (len(list(out.iterdir())), list(temporary.iterdir())) == (3, [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fast"], "unknown option --fast; use --dry-run, --device, --out or --total"),
        (["--device", "tpu"], "unknown device tpu; use cuda or cpu"),
        (["--total", "soon"], "--total is soon; give whole seconds"),
        (["--total"], "--total needs a value"),
        (["--out", "/dev/null/x"], "cannot write to /dev/null/x; use another --out"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    found = run(tmp_path, *flags)
    assert (found.code, found.err) == (2, f"gpu_quarter: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_makes_an_archive_too_large_is_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for name, size in (("a", 10), ("b", 50_000), ("c", 100_000)):
        (folder / name).mkdir(parents=True)
        (folder / name / "run.sqlite").write_bytes(os.urandom(size))
    file = tmp_path / "runs.tar.gz"
    assert summary.pack(folder, file, limit=60_000) == ["runs/c/run.sqlite"]
    assert file.stat().st_size <= 60_000
    with tarfile.open(file) as archive:
        assert sorted(archive.getnames()) == ["runs/a/run.sqlite", "runs/b/run.sqlite"]


def test_a_run_that_cannot_be_read_does_not_spoil_the_summary(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "runs" / "vit_b").mkdir(parents=True)
    steps = summary.read_steps(tmp_path, ["vit_b:40", "probes:85"])
    assert [step.verdict for step in steps] == ["not started", "not started"]
    assert "vit_b: cannot be read: " in summary.summarise(tmp_path, steps)


def test_defects_that_were_not_reached_are_named(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    lines = [f"defect {number}: refuted, something [0 s]" for number in range(2, 24)]
    (tmp_path / "logs" / "probes.log").write_text("\n".join(["noise", *lines]))
    assert summary.defect_lines(tmp_path) == [*lines, "not reached: 1, 24"]


def test_wheels_are_taken_for_what_is_not_used_as_found() -> None:
    names = {wheels.name(each) for each in wheels.requirements()}
    assert names >= {"typer", "pydantic", "safetensors", "nvidia-ml-py", "pytest", "hypothesis"}
    assert not names & wheels.AS_FOUND


def test_a_probe_that_hangs_dies_or_fails_decides_nothing_and_spoils_none() -> None:
    code = """
import os, sys, time, torch
torch._C._cuda_getDeviceCount = lambda: sys.exit("a process that has asked CUDA for its devices cannot fork")
from gpu.probe import Here, Probe, decided
from gpu.probes import PROBES, decide
print(len(PROBES), torch.cuda.is_initialized())
here = Here(torch.device("cuda"), small=True)
for run in (lambda here: time.sleep(600), lambda here: os.kill(os.getpid(), 9), lambda here: 1 / 0,
            lambda here: decided(True, "1980 MHz")):
    found = decide(Probe(0, "", 1.0, run, False), here)
    print(found.verdict, found.figure)
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "24 False",
        "undecided took over 1 s",
        "undecided its process died with exit code -9",
        "undecided ZeroDivisionError: division by zero",
        "confirmed 1980 MHz",
    ], done.stderr
