"""The testbed's description: complete, plain, and never in the way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from tomebench import schema
from tomebench.measure import testbed
from tomebench.runs.testbed import UNAVAILABLE, fingerprint, one_line

CPU = torch.device("cpu")


def test_description_is_flat_json_without_gaps() -> None:
    described = testbed.describe(CPU, threads=2)
    schema.canonical_json(described)
    assert set(described) == {
        *(
            "device",
            "device_name",
            "driver",
            "cuda",
            "cudnn",
            "cublas",
            "overrides",
            "cpu",
            "usable_cpus",
            "threads",
            "platform",
            "python",
        ),
        *("torch", "torchvision", "timm", "numpy", "git", "memory"),
        *("gpu_max_mhz", "gpu_power_limit_w", "gpu_throttle_reasons"),
    }
    assert all(isinstance(value, str | int | float) and value != "" for value in described.values())
    assert described["threads"] == 2
    assert described["torch"] == torch.__version__.partition("+")[0] or described["torch"] == torch.__version__
    assert described["driver"] == described["cuda"] == UNAVAILABLE
    assert described["usable_cpus"] > 0


def test_variables_that_change_a_cpu_are_part_of_the_testbed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = testbed.describe(CPU, threads=1)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    described = testbed.describe(CPU, threads=1)
    assert (before["overrides"], described["overrides"]) == (UNAVAILABLE, "ONEDNN_MAX_CPU_ISA=SSE41")
    assert fingerprint(described) != fingerprint(before)
    assert one_line(described).endswith(", ONEDNN_MAX_CPU_ISA=SSE41")


def test_one_line_says_it_in_one_line() -> None:
    described = testbed.describe(CPU, threads=1)
    line = one_line(described)
    assert "\n" not in line
    assert "1 thread on" in line
    assert f"torch {described['torch']}" in line
    assert "driver" not in line
    gpu = {**described, "device_name": "NVIDIA H100", "driver": "580.65.06", "usable_cpus": 1.0}
    assert one_line(gpu).startswith("NVIDIA H100, driver 580.65.06, ")
    assert "on 1 CPU," in one_line(gpu)


def test_fingerprint_sees_everything_but_the_commit_and_the_moment() -> None:
    described = testbed.describe(CPU, threads=1)
    print_ = fingerprint(described)
    assert fingerprint({**described, "git": "abc-dirty"}) == print_
    assert fingerprint({**described, "gpu_throttle_reasons": "power cap"}) == print_
    assert fingerprint({**described, "younger": UNAVAILABLE}) == print_
    for key in set(described) - {"git", "gpu_throttle_reasons"}:
        assert fingerprint({**described, key: "other"}) != print_


def _cgroup(root: Path, own: str, quotas: dict[str, str]) -> tuple[Path, Path]:
    for folder, text in quotas.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        if text.startswith("v1 "):
            for name, value in zip(("quota", "period"), text.split()[1:], strict=True):
                (root / folder / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
        else:
            (root / folder / "cpu.max").write_text(text)
    (root / "self").write_text(own)
    return root, root / "self"


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {"": "50000 100000\n"}, 0.5),
        ("0::/\n", {"": "max 100000\n"}, 64.0),
        ("0::/a/b\n", {"a": "150000 100000\n", "a/b": "max 100000\n"}, 1.5),  # a parent's quota binds
        ("0::/a/b\n", {"a": "max 100000\n", "a/b": "25000 100000\n"}, 0.25),
        ("12:cpu:/x\n0::/a\n", {"a": "100000 100000\n"}, 1.0),  # v1 lines beside the v2 line
        ("0::/gone\n", {"": "75000 100000\n"}, 0.75),
        ("0::/\n", {"": "nonsense"}, 64.0),
        ("", {}, 64.0),
        ("4:cpu:/x\n", {"cpu/x": "v1 50000 100000", "cpu": "v1 -1 100000"}, 0.5),
        ("4:cpu,cpuacct:/x/y\n0::/\n", {"cpu,cpuacct/x": "v1 150000 100000"}, 1.5),
        ("4:cpu,cpuacct:/on/the/host\n", {"cpu": "v1 25000 100000"}, 0.25),
        ("4:cpuset:/x\n", {"cpuset/x": "v1 50000 100000"}, 64.0),
    ],
)
def test_usable_cpus_are_those_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, quotas: dict[str, str], expected: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert testbed.usable_cpus(*_cgroup(tmp_path, own, quotas)) == expected


def test_usable_cpus_are_never_more_than_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert testbed.usable_cpus(*_cgroup(tmp_path, "0::/\n", {"": "800000 100000\n"})) == 1


def test_usable_cpus_without_cgroups(tmp_path: Path) -> None:
    assert testbed.usable_cpus(tmp_path / "absent", tmp_path / "absent too") >= 1


def test_cpu_model(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz  \nflags\t: x\n")
    assert testbed.cpu_model(info) == "Some CPU @ 2 GHz"
    assert testbed.cpu_model(tmp_path / "absent")


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _git(tmp_path, "init", "-q")
    assert testbed.git_state(tmp_path) == UNAVAILABLE  # no commit yet
    (tmp_path / "f").write_text("1")
    _git(tmp_path, "add", "f")
    _git(tmp_path, "commit", "-qm", "m")
    _git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    commit = _git(tmp_path, "rev-parse", "HEAD")[:12]
    assert testbed.git_state(tmp_path) == commit
    (tmp_path / "untracked").write_text("2")
    assert testbed.git_state(tmp_path) == commit
    (tmp_path / "f").write_text("2")
    assert testbed.git_state(tmp_path) == f"{commit}-dirty"
    # As git sets them for hooks: of another repository, or with an index of its own.
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parents[2] / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert testbed.git_state(tmp_path) == f"{commit}-dirty"


def test_git_state_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert testbed.git_state(tmp_path) == UNAVAILABLE
    (tmp_path / ".git").mkdir()
    assert testbed.git_state(tmp_path) == UNAVAILABLE  # not a repository
    monkeypatch.setenv("PATH", "")
    assert testbed.git_state(tmp_path) == UNAVAILABLE  # no git


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("", UNAVAILABLE),
    ],
)
def test_driver_version_is_read_without_a_library(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "version").write_text(text)
    assert testbed._nvidia_driver(tmp_path / "version") == expected
