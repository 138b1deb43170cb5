"""Real processes, under torchrun and without: any number gives the same bits, and whoever dies or freezes is named."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ranks_runner import PROGRAM, Runner, alive, results, said, with_variable

from tomebench.datasets.imagenet import wnids
from tomebench.runs.store import Store

LIMIT = 60.0
"""Seconds within which all are to have ended; a bar that is judged by hand."""


def test_with_variable_finds_what_is_there() -> None:
    value = f"test {time.monotonic_ns()}"
    command = ["/bin/sh", "-c", "echo up; exec /bin/sleep 60"]
    with subprocess.Popen(command, env={"HERE": value}, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # before that, the system may not show its variables
        assert with_variable("HERE", value) == [process.pid]
        process.kill()
    assert with_variable("HERE", value) == []


def test_alive_can_say_both() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert alive(process.pid)
        process.kill()
        process.wait()
        assert not alive(process.pid)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone(runner: Runner) -> Path:
    """A run by one process."""
    out = runner.root / "alone"
    assert runner.run(1, out).code == 0
    return out


@pytest.mark.slow  # that any number gives them is shown by the next test, too
@pytest.mark.parametrize(("processes", "launched"), [(2, True), (3, False)])
def test_any_number_of_processes_gives_the_same_bits(
    runner: Runner, alone: Path, processes: int, launched: bool
) -> None:
    out = runner.root / str(processes)
    ended = runner.run(processes, out, launched=launched)
    assert ended.code == 0, ended.err
    assert not launched or ended.err == ""
    assert said(ended) == []
    assert results(out) == results(alone)


def test_several_processes_add_a_cell_to_what_one_has_evaluated(runner: Runner, alone: Path, tmp_path: Path) -> None:
    """Interrupted on the way: then some batches want the cell and others do not."""
    out, whole = tmp_path / "added", tmp_path / "whole"
    shutil.copytree(alone, out)
    ended = runner.run(1, out, r="0,6", FAULT="0:SIGTERM:3")
    assert ended.code == 130, ended.err
    with Store.read(out) as store:
        added = [len(keys) for keys in store.evaluated().values()]
        assert {3, 4} == {*added}
        assert len(store.predictions()) == 3
    ended = runner.run(2, out, r="0,6")
    assert (ended.code, said(ended)) == (0, [])
    assert runner.run(1, whole, r="0,2,4,6").code == 0
    assert results(out) == results(whole)


@pytest.mark.slow  # that several go on with what one has begun is shown by the test before
@pytest.mark.parametrize("chain", [((1, "0:SIGTERM:3"),), ((1, "0:SIGTERM:3"), (3, "0:SIGTERM:1"))])
def test_other_numbers_of_processes_in_turn_resume_to_the_same_table(
    runner: Runner, alone: Path, chain: tuple[tuple[int, str], ...]
) -> None:
    """One process, or one and then three, are interrupted; two that the program starts itself go on."""
    out, seen = runner.root / f"chain{len(chain)}", [0]
    for processes, fault in chain:
        ended = runner.run(processes, out, FAULT=fault, SLOW="0.2")
        assert ended.code != 0
        assert any("interrupted; what was done is kept" in line for line in said(ended)), ended.err
        with Store.read(out) as store:
            seen.append(len(store.done_chunks()))
    assert seen == sorted({*seen}), "one of them did nothing"
    assert seen[-1] < 12
    ended = runner.run(2, out, launched=True)
    assert (ended.code, ended.err) == (0, "")
    assert results(out) == results(alone)
    with Store.read(out) as store:
        processes = [None if number == 1 else number for number, _ in chain]
        assert [testbed.get("processes") for _, testbed in store.sessions()] == [*processes, 2]
        assert {pace.session for pace in store.paces()} == {*range(1, len(chain) + 2)}


FAULTS = [
    (2, "1:SIGKILL:2", 1),
    pytest.param(3, "0:SIGKILL:2", 0, marks=pytest.mark.slow),
    pytest.param(2, "1:SIGSTOP:2", 1, marks=pytest.mark.slow),  # a minute each, half of it torchrun's patience
    pytest.param(3, "0:SIGSTOP:2", 0, marks=pytest.mark.slow),
    pytest.param(2, "1:hang:2", 1, marks=pytest.mark.slow),
    pytest.param(3, "0:hang:2", 0, marks=pytest.mark.slow),
]
"""Processes, what happens to which of them in which batch, and the rank that is named for it."""


@pytest.mark.parametrize(("processes", "fault", "named"), FAULTS)
def test_a_rank_that_dies_or_freezes_is_named(
    runner: Runner, alone: Path, processes: int, fault: str, named: int, tmp_path: Path
) -> None:
    ended = runner.run(processes, tmp_path / "run", FAULT=fault)
    print(f"{fault}: ended after {ended.seconds:.0f} s, start included: {said(ended)}")
    assert ended.code not in (0, 130)
    (line,) = [line for line in said(ended) if "rank" in line]
    hangs = r"(\(process \d+ on \S+\): )?hangs: its work has not gone on for 20 s"  # which rank 0 says of itself
    what = hangs if "hang" in fault else r"\(process \d+ on \S+\) has died or hangs"
    assert re.match(rf"tomebench: error: rank {named} {what}", line)
    assert "what was evaluated is kept; run the same command again" in line
    if "SIGSTOP" in fault:  # that a killed run goes on is shown above
        again = runner.run(2, tmp_path / "run")
        assert again.code == 0, again.err
        assert results(tmp_path / "run") == results(alone)


@pytest.mark.slow
def test_a_group_that_torchrun_starts_again_goes_on(runner: Runner, alone: Path, tmp_path: Path) -> None:
    ended = runner.run(2, tmp_path / "run", restarts=1, FAULT="1:SIGKILL:3", ONCE=str(tmp_path / "killed"), SLOW="0.2")
    assert (tmp_path / "killed").exists()
    assert ended.code == 0, ended.err
    assert results(tmp_path / "run") == results(alone)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        pytest.param("code", "another code than rank 0 (0123456789abcdef, not ", marks=pytest.mark.slow),
        pytest.param("first image", "another image 'n01440764/00000.JPEG' than rank 0 (", marks=pytest.mark.slow),
        ("sixth image", "another image 'n01443537/00001.JPEG' than rank 0;"),
    ],
)
def test_a_rank_of_other_code_or_files_is_named_before_it_counts(
    runner: Runner, tmp_path: Path, other: str, says: str
) -> None:
    """Code and a sample of the images are compared before anything is measured, all images as they come."""
    faults = {"OTHER_RANK": "1"}
    if other != "code":
        faults["OTHER_DATA"] = str(tmp_path / "images")
        shutil.copytree(runner.root / "images", tmp_path / "images")
        there = sorted((tmp_path / "images").rglob("*.JPEG"))
        there[0 if other == "first image" else 5].write_bytes(there[1].read_bytes())
    ended = runner.run_two(tmp_path / "run", **faults)
    (line,) = [line for line in said(ended) if "rank" in line]
    assert says in line
    if other == "sixth image":  # all but the batch that it is in is of the same images
        with Store.read(tmp_path / "run") as store:
            assert 1 not in store.done_chunks()
    else:
        assert not (tmp_path / "run").exists()


@pytest.mark.bench
@pytest.mark.parametrize("fault", ["1:SIGKILL:2", "1:SIGSTOP:2", "1:hang:2"])
def test_all_of_them_end_within_a_minute(runner: Runner, fault: str, tmp_path: Path) -> None:
    ended = runner.run(2, tmp_path / "run", FAULT=fault)
    assert ended.code not in (0, 130)
    assert ended.seconds < LIMIT  # starting included


@pytest.mark.slow
def test_a_frozen_torchrun_ends_all_ranks(runner: Runner, tmp_path: Path) -> None:
    """The store in which the ranks meet is its, and nothing in it answers any more."""
    environment = runner.environment(SLOW="1000")
    with subprocess.Popen(
        runner.command(2, tmp_path / "run"), stderr=subprocess.PIPE, text=True, env=environment
    ) as torchrun:
        pids: list[int] = []
        while len(pids) < 2:
            time.sleep(0.5)
            pids = [int(path.name) for path in Path(environment["PIDS"]).iterdir()]
        time.sleep(15)  # until they are in their first batch
        torchrun.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while any(map(alive, pids)) and time.monotonic() < began + 10 * LIMIT:
            time.sleep(0.5)
        took = time.monotonic() - began
        ended = not any(map(alive, pids))
        torchrun.kill()
        _, err = torchrun.communicate()
    print(f"ended {took:.0f} s after torchrun was frozen")
    assert ended
    for rank in (0, 1):
        assert f"tomebench: error: rank {rank} has lost the others: the machine that torchrun makes them meet" in err


@pytest.mark.slow  # that it is refused is shown without torchrun in test_heartbeat.py
def test_a_rank_with_other_images_is_refused_by_name(runner: Runner, tmp_path: Path) -> None:
    """Rank 1 finds a data set that differs: on another machine it might."""
    here = tmp_path / "data"
    here.symlink_to(runner.root / "images")
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").mkdir()
    (other / "images" / wnids()[0]).symlink_to(runner.root / "images" / wnids()[0])
    environment = runner.environment()
    command = [part.replace(f"{runner.root}/images", "images") for part in runner.command(2, tmp_path / "run")]
    script = f"import os, runpy, sys; os.chdir([{str(runner.root)!r}, {str(other)!r}][int(os.environ['RANK'])]); \
sys.argv = sys.argv[1:]; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    launcher = tmp_path / "launcher.py"
    launcher.write_text(script)
    at = command.index(str(PROGRAM))
    command[at : at + 1] = [str(launcher), str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, env=environment)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tomebench: error")]
    assert re.match(r"tomebench: error: rank 1 \(process \d+ on \S+\): it finds other images than rank 0; give", line)


@pytest.mark.slow  # who says it is shown without torchrun in test_heartbeat.py
@pytest.mark.parametrize("launched", [True, False])
def test_bad_input_is_said_once(runner: Runner, tmp_path: Path, launched: bool) -> None:
    command = [*runner.command(2, tmp_path / "run", launched=launched), "--data", str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, env=runner.environment())
    lines = done.stderr.splitlines()
    (line,) = lines if launched else [line for line in lines if line.startswith("tomebench: error")]
    assert "no such folder" in line
    assert done.returncode == (2 if launched else 1)  # torchrun has one code for everything


@pytest.mark.slow  # what each code comes to is shown without processes in test_cli_launch.py
def test_an_interrupted_launch_ends_with_130_and_names_its_own_command(runner: Runner, tmp_path: Path) -> None:
    environment = runner.environment()
    command = [*runner.command(2, tmp_path / "run", launched=True), "--r", "0..24"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as launcher:
        while not (tmp_path / "run" / "run.sqlite").exists():
            time.sleep(0.5)
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=1200)
    assert launcher.returncode == 130
    assert re.search(r"interrupted; .* python -m tomebench sweep .* --nproc-per-node 2 ", err)
    assert "Traceback" not in err
    assert with_variable("PIDS", environment["PIDS"]) == []
