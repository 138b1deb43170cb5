"""Several processes by one flag: what the launcher is asked, what is refused, and what its end comes to."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys

import pytest
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tomebench.cli import launch
from tomebench.cli.launch import LAUNCHED_AS, LaunchFlags, exit_code, launcher_arguments
from tomebench.errors import ConfigError, Interrupted, RankError

SWEEP = ("sweep", "--model", "m", "--r", "0..24")


@pytest.fixture(autouse=True)
def no_launcher_around(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PET_")]:
        monkeypatch.delenv(name)
    for name in ("LOCAL_RANK", LAUNCHED_AS, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what is set on the way is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOGLEVEL", "ERROR")  # the launcher would turn logging off for the tests after these


@pytest.fixture
def asked(monkeypatch):
    """The arguments with which the launcher would have been run, as it reads them itself."""
    found = []
    monkeypatch.setattr(launch, "_launch", lambda words: found.append(torchrun.parse_args(words)) or 0)
    return found


@pytest.fixture
def launched(program, monkeypatch):
    """Run a command line as the program of this process."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tomebench", *arguments])
        return program(*arguments)

    return call


def test_the_same_command_is_run_in_every_process(launched, asked):
    result = launched(*SWEEP, "--nproc-per-node", "8", "--out", "runs/a b")
    assert (result.code, result.out, result.err) == (0, "", "")
    (args,) = asked
    assert (args.nproc_per_node, args.standalone, args.module, args.training_script) == ("8", True, True, "tomebench")
    assert args.training_script_args == [*SWEEP, "--nproc-per-node", "8", "--out", "runs/a b"]
    assert os.environ[LAUNCHED_AS] == launch.program_name() == "tomebench"


@pytest.mark.parametrize("command", [("demo",), ("ablate",), SWEEP])
def test_a_process_that_was_launched_does_the_work(launched, asked, engine, monkeypatch, command):
    engine()
    monkeypatch.setenv(LAUNCHED_AS, "python -m tomebench")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("tomebench.cli.ablate.measure", lambda *_: None)
    assert launched(*command, "--nproc-per-node", "2", "--quiet").code == 0
    assert asked == []
    assert launch.program_name() == "python -m tomebench"


@pytest.mark.parametrize("command", [("demo",), ("ablate",)])
def test_the_commands_that_sweep_take_the_flag_too(launched, asked, command):
    assert launched(*command, "--nproc-per-node", "2").code == 0
    assert asked[0].training_script_args == [*command, "--nproc-per-node", "2"]


def test_what_is_planned_is_planned_by_one(launched, asked):
    assert launched("plan", "--model", "test_vit", "--r", "0,2", "--nproc-per-node", "8", "--device", "cuda").code == 0
    assert asked == []


def test_elastic_options_are_passed_on():
    flags = LaunchFlags(
        nproc_per_node="gpu", nnodes="2:4", rdzv_backend="c10d", rdzv_endpoint="host:29500", rdzv_id="7",
        node_rank=1, master_addr="host", master_port=29501, max_restarts=3,
    )  # fmt: skip
    args = torchrun.parse_args([*launcher_arguments(flags, {}), "script"])
    for name in ("nproc_per_node", "nnodes", "rdzv_backend", "rdzv_endpoint", "rdzv_id"):
        assert getattr(args, name) == getattr(flags, name)
    assert (args.node_rank, args.master_addr, args.master_port, args.max_restarts) == (1, "host", 29501, 3)
    assert not args.standalone


@pytest.mark.parametrize("name", ["node_rank", "master_port", "max_restarts"])
def test_nought_is_a_value(name):
    alone = dataclasses.replace(LaunchFlags(), **{name: 0})
    with pytest.raises(ConfigError, match="add --nproc-per-node"):
        launcher_arguments(alone, {})
    flags = dataclasses.replace(alone, nproc_per_node="2", nnodes="2", master_addr="host")
    args = torchrun.parse_args([*launcher_arguments(flags, {"PET_NODE_RANK": "1"}), "script"])
    assert getattr(args, name) == 0


@pytest.mark.parametrize(
    ("flags", "environment", "standalone"),
    [
        (LaunchFlags(nproc_per_node="2"), {}, True),
        (LaunchFlags(nproc_per_node="2", nnodes="1:1", max_restarts=1), {}, True),
        (LaunchFlags(nproc_per_node="2", standalone=True), {}, True),
        (LaunchFlags(nproc_per_node="2", master_port=29501), {}, False),
        (LaunchFlags(nproc_per_node="2", rdzv_endpoint="h:1", rdzv_backend="c10d"), {}, False),
        (LaunchFlags(nproc_per_node="2"), {"PET_NNODES": "2"}, False),
    ],
)
def test_two_sweeps_on_a_machine_do_not_meet(flags, environment, standalone):
    assert ("--standalone" in launcher_arguments(flags, environment)) == standalone


def test_alone_nothing_is_launched():
    assert launcher_arguments(LaunchFlags({"model": "m"}), {"LOCAL_RANK": "0"}) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--nproc-per-node", "0"], "--nproc-per-node '0': use a number of processes, auto, gpu or cpu"),
        (["--nproc-per-node", "two"], "--nproc-per-node 'two': use a number of processes"),
        (["--nproc-per-node", "-1"], "use a number"),
        (["--nnodes", "2"], "--nnodes is about several processes; add --nproc-per-node"),
        (["--standalone"], "--standalone is about several processes"),
        (["--nproc-per-node", "2", "--nnodes", "3:2"], "--nnodes '3:2': use a number of machines, or MIN:MAX"),
        (["--nproc-per-node", "2", "--nnodes", "0"], "--nnodes '0'"),
        (["--nproc-per-node", "2", "--nnodes", "2"], "need a place to meet; add --rdzv-backend c10d --rdzv-endpoint"),
        (["--nproc-per-node", "2", "--standalone", "--rdzv-id", "x"], "drop --rdzv-id, or --standalone"),
        (["--nproc-per-node", "2", "--standalone", "--nnodes", "2"], "drop --nnodes, or --standalone"),
        (["--nproc-per-node", "2", "--max-restarts", "-1"], "--max-restarts -1: use a whole number from 0"),
        (["--nproc-per-node", "2", "--master-port", "65536"], "use a whole number from 0 to 65535"),
        (["--nproc-per-node", "2", "--rdzv-backend", "pigeon", "--rdzv-endpoint", "h:1"], "backend 'pigeon'"),
        (["--nproc-per-node", "2", "--dtype", "fp8"], "--dtype 'fp8': use fp32"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_started(launched, monkeypatch, arguments, part):
    monkeypatch.setattr("torch.distributed.launcher.api.LocalElasticAgent", None)
    result = launched(*SWEEP, *arguments)
    assert (result.code, result.out) == (2, "")
    assert part in result.error


def test_gpus_that_are_not_there_are_refused(launched, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = launched(*SWEEP, "--nproc-per-node", "gpu")
    assert result.code == 2
    assert "--nproc-per-node gpu: Cuda is not available; use a number" in result.error


def test_a_process_of_torchrun_launches_nothing(launched, asked, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    result = launched(*SWEEP, "--nproc-per-node", "2")
    assert result.code == 2
    assert "this process was started by torchrun already; drop --nproc-per-node, or torchrun" in result.error
    assert asked == []


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((0, 0), 0),
        ((2, 130), 2),  # one refused its input and the other was stopped for it
        ((5, 2), 2),  # rank 0 heard of it
        ((5, 0), 5),  # failed cells, which rank 0 knows
        ((130, -signal.SIGKILL), 5),
        ((-signal.SIGTERM, 1), 1),
        ((130, 130), 130),
    ],
)
def test_the_exit_code_is_that_of_the_cause(codes, code):
    assert exit_code(codes) == code


def failed(*codes):
    return ChildFailedError(
        "tomebench", {rank: ProcessFailure(rank, 1, code, "none") for rank, code in enumerate(codes)}
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (failed(130, -9), RankError.exit_code, ""),  # rank 0 has said it
        (failed(2, 130), 2, ""),
        (failed(-9, -9), RankError.exit_code, "tomebench: error: every process was ended by SIGKILL; what was"),
        (SignalException("", signal.SIGTERM), Interrupted.exit_code, ""),
        (
            RuntimeError("timed out\nafter 60 s"),
            RankError.exit_code,
            "cannot meet (timed out after 60 s); check --rdzv",
        ),
    ],
)
def test_how_processes_end_is_how_the_program_ends(launched, monkeypatch, error, code, line):
    def run(_):
        assert os.environ["OMP_NUM_THREADS"] == "1"
        raise error

    monkeypatch.setattr(torchrun, "run", run)
    result = launched(*SWEEP, "--nproc-per-node", "2")
    assert (result.code, result.out) == (code, "")
    assert line in result.error if line else result.err == ""


def test_one_process_keeps_its_threads(launched, monkeypatch):
    monkeypatch.setattr(torchrun, "run", lambda _: None)
    assert launched(*SWEEP, "--nproc-per-node", "1").code == 0
    assert "OMP_NUM_THREADS" not in os.environ
