"""Launch of ``--nproc-per-node`` processes for one sweep, by torchrun's launcher.

The launcher runs in this process, which does nothing else: no further process has to forward signals and exit codes,
and the launcher's own reports are not printed beside the line with the error.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from tomebench.cli.options import (
    MasterAddr,
    MasterPort,
    MaxRestarts,
    Nnodes,
    NodeRank,
    NprocPerNode,
    RdzvBackend,
    RdzvEndpoint,
    RdzvId,
    Standalone,
    SweepFlags,
)
from tomebench.errors import ConfigError, InputError, Interrupted, RankError, SpecError

LAUNCHED_AS = "TOMEBENCH_LAUNCHED_AS"
"""Environment variable of a launched process: the name by which the user called the program."""


@dataclass(frozen=True)
class LaunchFlags(SweepFlags):
    """Flags of sweep, and torchrun's own flags for the number of processes that share it."""

    nproc_per_node: NprocPerNode = None
    nnodes: Nnodes = None
    rdzv_backend: RdzvBackend = None
    rdzv_endpoint: RdzvEndpoint = None
    rdzv_id: RdzvId = None
    node_rank: NodeRank = None
    master_addr: MasterAddr = None
    master_port: MasterPort = None
    max_restarts: MaxRestarts = None
    standalone: Standalone = False


_OWN = tuple(f.name for f in dataclasses.fields(LaunchFlags) if f.name not in SweepFlags.__dataclass_fields__)
_MEETING = ("rdzv_backend", "rdzv_endpoint", "rdzv_id", "node_rank", "master_addr", "master_port")
"""The flags for the rendezvous of the processes."""


def program_name() -> str:
    """Name by which the user called the program."""
    as_module = Path(sys.argv[0]).parts[-2:] == ("tomebench", "__main__.py")
    return os.environ.get(LAUNCHED_AS) or ("python -m tomebench" if as_module else "tomebench")


def start_processes(flags: SweepFlags) -> None:
    """Start the processes that ``flags`` ask for, wait for them and exit with their code; return if none are asked for.

    Args:
        flags: of this command; its configuration has been checked.

    Raises:
        InputError: flags that do not go together.
        RankError: the rendezvous failed, or the processes were ended by signals.
        Exit: they have ended.
    """
    if not isinstance(flags, LaunchFlags) or LAUNCHED_AS in os.environ:
        return
    if not (words := launcher_arguments(flags, os.environ)):
        return
    os.environ[LAUNCHED_AS] = program_name()
    if code := _launch([*words, "-m", "--", "tomebench", *sys.argv[1:]]):
        raise typer.Exit(code)
    raise typer.Exit


def launcher_arguments(flags: LaunchFlags, environment: Mapping[str, str]) -> list[str]:
    """The options of torchrun for these flags; empty if this process measures alone.

    Raises:
        InputError: flags that do not go together, or a process that has been started by torchrun already.
    """
    values = {name: getattr(flags, name) for name in _OWN}
    given = {name: value for name, value in values.items() if value is not None and value is not False}  # 0 is given
    if not given:
        return []
    if flags.nproc_per_node is None:
        raise ConfigError(f"{_flag(next(iter(given)))} is about several processes; add --nproc-per-node")
    if "LOCAL_RANK" in environment:
        raise ConfigError("this process was started by torchrun already; drop --nproc-per-node, or torchrun")
    _check(flags, given)
    meeting = [name for name in _MEETING if name in given]
    named_outside = any(name.startswith("PET_") for name in environment)  # torchrun takes its options from there, too
    if not meeting and not _several_machines(flags) and not named_outside:
        given["standalone"] = True  # own port, so that processes of two sweeps on one machine do not join
    return [
        word
        for name, value in given.items()
        for word in ([_flag(name)] if value is True else [_flag(name), str(value)])
    ]


def exit_code(codes: Sequence[int]) -> int:
    """The exit code of several processes together: that of the cause. Ended by a signal counts as a lost process.

    A process that fails ends all others, which then exit with another code. Codes of causes (a bug 1, bad input 2,
    storage or a lost process 5) take precedence over those that they lead to.
    """
    return min((code if code >= 0 else RankError.exit_code for code in codes if code), default=0)


def _check(flags: LaunchFlags, given: Mapping[str, object]) -> None:
    processes = flags.nproc_per_node or ""
    if not re.fullmatch(r"auto|gpu|cpu|0*[1-9][0-9]{0,3}", processes):
        raise SpecError(f"--nproc-per-node {processes!r}: use a number of processes, auto, gpu or cpu")
    machines = re.fullmatch(r"0*([1-9][0-9]{0,5})(?::0*([1-9][0-9]{0,5}))?", flags.nnodes or "1")
    if machines is None or (machines[2] and int(machines[2]) < int(machines[1])):
        raise SpecError(f"--nnodes {flags.nnodes!r}: use a number of machines, or MIN:MAX")
    for name, most in (("max_restarts", 10**6), ("node_rank", 10**6), ("master_port", 65535)):
        if not 0 <= int(str(given.get(name, 0))) <= most:
            raise SpecError(f"{_flag(name)} {given[name]}: use a whole number from 0 to {most}")
    meeting = [name for name in _MEETING if name in given]
    if flags.standalone and (meeting or _several_machines(flags)):
        other = _flag(meeting[0]) if meeting else "--nnodes"
        raise ConfigError(f"--standalone is for one machine and finds a port itself; drop {other}, or --standalone")
    if _several_machines(flags) and not {"rdzv_endpoint", "master_addr"} & {*meeting}:
        raise ConfigError(
            f"--nnodes {flags.nnodes} machines need a place to meet; "
            "add --rdzv-backend c10d --rdzv-endpoint HOST:PORT --rdzv-id NAME, the same on all of them"
        )


def _several_machines(flags: LaunchFlags) -> bool:
    return flags.nnodes is not None and {int(part) for part in flags.nnodes.split(":")} != {1}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _launch(arguments: Sequence[str]) -> int:
    """Run torchrun's launcher with these arguments until all processes have ended.

    Returns:
        Their exit code together.

    Raises:
        InputError: it refuses an argument.
        RankError: the rendezvous failed, or all processes were ended by a signal, so that none could report it.
    """
    if "LOGLEVEL" not in os.environ:
        logging.disable(logging.ERROR)  # the launcher logs which processes it signals; their own errors are enough
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    asked = torchrun.parse_args([*arguments])
    try:
        processes = torchrun.determine_local_world_size(asked.nproc_per_node)
    except ValueError as error:
        raise InputError(f"--nproc-per-node {asked.nproc_per_node}: {_reason(error)}; use a number") from error
    try:
        if processes > 1:
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, without its banner
        torchrun.run(asked)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if len(codes) == processes and max(codes) < 0:
            signals = ", ".join(dict.fromkeys(failure.signal_name() for failure in error.failures.values()))
            raise RankError(
                f"every process was ended by {signals}; what was evaluated is kept, run the same command again"
            ) from error
        return exit_code(codes)
    except SignalException:
        return Interrupted.exit_code
    except ValueError as error:
        raise InputError(f"{_reason(error)}; correct how the processes meet (see: --help-all)") from error
    except (RendezvousError, RuntimeError, OSError) as error:
        raise RankError(
            f"the processes cannot meet ({_reason(error)}); check --rdzv-endpoint and the network"
        ) from error
    return 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200]
