"""Full disks, damaged stores, folders in use or read-only: one line, and nothing that was there is lost."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_runs import DIGITS, EVERY_PHASE, Commits, assert_nothing_lost, kept, refused, table, tree

from tomebench.report import write
from tomebench.runs import run_folder
from tomebench.runs.lock import RunLock

pytestmark = pytest.mark.usefixtures("quick_sweeps")


def test_commits_notices_that_there_are_fewer(program, earlier):
    with pytest.raises(AssertionError, match="there were 1 commits, none of number 3"), Commits(full_at=3) as commits:
        commits.done = 1


def test_refused_can_fail(program, earlier):
    with pytest.raises(AssertionError):
        refused(program, "report", "run")  # succeeds
    with pytest.raises(AssertionError):
        refused(program, "report", "nowhere", code=5)  # exits with 2
    assert "there is no run in nowhere" in refused(program, "report", "nowhere")


def test_everything_but_the_store_is_derived_and_comes_back_bit_by_bit(program, earlier):
    before = tree(earlier)
    for path in earlier.iterdir():
        if path.name != "run.sqlite":
            path.unlink()
    assert program("report", "run").code == 0
    assert tree(earlier) == before


# --- a full disk


def test_a_full_disk_at_any_commit_loses_nothing_that_was_committed(program, tmp_path):
    flags = (*DIGITS, "--limit", "4")
    with Commits() as whole:
        assert program(*flags, "--out", "whole").code == 0
    assert whole.done >= 14
    for number in {1, 2, *range(3, whole.done, 6), whole.done}:
        folder = tmp_path / str(number)
        with Commits(full_at=number):
            result = program(*flags, "--out", folder.name)
        assert (result.code, result.out) == (5, ""), number
        assert "the disk is full; free some space and run the same command again" in result.error, number
        before = kept(folder)
        with Commits() as rest:
            assert program(*flags, "--out", folder.name).code == 0, number
        assert_nothing_lost(folder, before)
        assert table(folder) == table(tmp_path / "whole"), number
        assert rest.done <= whole.done + 2 - number + RESUMING, number  # little is done twice
        shutil.rmtree(folder)


RESUMING = 8
"""Commits that every session begins with or repeats: its number, the batch size, the sessions of the images, ..."""


def mount(*arguments: str) -> bool:
    program = shutil.which(arguments[0])
    return program is not None and subprocess.run([program, *arguments[1:]], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 KiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("mount", "-t", "tmpfs", "-o", "size=40k", "tomebench", str(folder)):
        pytest.skip("no right to mount a small disk here")
    yield folder
    assert mount("umount", str(folder))


def test_a_real_disk_that_is_full_again_and_again(program, small_disk, undisturbed, monkeypatch):
    monkeypatch.setattr(run_folder, "MIN_FREE_MIB", 0)
    folder, codes = small_disk / "run", []
    before = kept(folder)
    for size in range(40, 1000, 40):
        assert mount("mount", "-o", f"remount,size={size}k", str(small_disk))
        assert_nothing_lost(folder, before)
        before = kept(folder)
        result = program(*EVERY_PHASE, "--out", str(folder))
        codes.append(result.code)
        if result.code == 0:
            break
        assert (result.code, result.out) == (5, "")
        assert re.search("disk is full|No space left|disk I/O error; check the disk and its free space", result.error)
    assert codes[:-1] == [5] * (len(codes) - 1)
    assert len(codes) > 3
    assert codes[-1] == 0
    assert_nothing_lost(folder, before)
    assert table(folder) == table(undisturbed)


@pytest.mark.parametrize("file", [1, 2, 3])
def test_a_full_disk_at_any_file_of_a_report_leaves_the_earlier_ones(program, earlier, monkeypatch, file):
    calls, sync = [], write._sync

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_sync", full)
        (earlier / "table.csv").write_text("what was there before")
        assert "cannot write the report in run: No space left on device" in refused(program, "report", "run", code=5)
        calls.clear()
        before = tree(earlier)
        result = program(*EVERY_PHASE)
        assert (result.code, result.out) == (5, "")
        assert "cannot write the report in run" in result.error
        after = tree(earlier)
        assert {**after, "run.sqlite": None} == {**before, "run.sqlite": None}  # which notes that a session began
    assert program("report", "run").code == 0


@pytest.mark.parametrize("flag", ["--junit", "--benchmark", "--bencher"])
def test_a_full_disk_leaves_earlier_files_of_a_check(program, its_baseline, monkeypatch, flag):
    Path("report").write_text("what was there before")

    def full(path: Path, text: str) -> None:
        path.write_text(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("tomebench.whole.write_new", full)
        result = program("check", "run", "--baseline", "base.json", "--accuracy", "--quiet", flag, "report")
    assert result.code == 5
    assert "cannot read or write 'report': No space left on device" in result.error
    assert Path("report").read_text() == "what was there before"
    assert not list(Path().glob(".report*"))


def test_too_little_space_is_refused_before_anything_is_measured(program, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    result = program(*DIGITS)
    assert result.code == 5
    assert "the disk of run has 1 MiB left; free at least 64 MiB" in result.error
    assert not list(Path("run").iterdir())


# --- a damaged store


def test_a_store_cut_short_anywhere_is_refused_untouched(program, earlier):
    path = earlier / "run.sqlite"
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        for command in (EVERY_PHASE, ("report", "run"), ("check", "run", "--baseline", "x", "--update-baseline")):
            assert "run.sqlite is damaged" in refused(program, *command, code=5)


def test_flipped_bytes_end_in_one_line_or_in_the_same_table(program, earlier, undisturbed):
    path = earlier / "run.sqlite"
    whole = path.read_bytes()
    random_ = random.Random(0)
    codes = []
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[random_.randrange(len(whole))] ^= random_.randrange(1, 256)
        path.write_bytes(flipped)
        before = tree(earlier)
        result = program("report", "run")
        codes.append(result.code)
        if result.code == 0:
            assert (earlier / "table.csv").read_bytes() == (undisturbed / "table.csv").read_bytes()
        else:
            assert result.code in (2, 5)
            assert result.error.startswith("tomebench: error: run/run.sqlite")
            assert tree(earlier) == before
    assert codes.count(5) > 3  # most of a small store is unused space


# --- a folder in use


def test_a_second_writer_is_refused_and_names_the_first(program, earlier):
    with RunLock.acquire(earlier):
        assert f"run is in use by process {os.getpid()} on " in refused(program, *EVERY_PHASE)
        assert program("report", "run").code == 0  # reading is free
    assert program(*EVERY_PHASE).code == 0


def test_the_lock_of_a_process_that_is_gone_is_taken_over(program, earlier, undisturbed):
    (earlier / "run.lock").write_text(json.dumps({"pid": 999_999_999, "host": "gone", "since": "2000-01-01"}))
    assert program(*EVERY_PHASE).code == 0
    assert table(earlier) == table(undisturbed)
    assert not (earlier / "run.lock").exists()


def test_other_settings_are_refused_with_the_list_of_what_differs(program, earlier):
    line = refused(program, *EVERY_PHASE, "--r", "0,4", "--seed", "1", "--dtype", "bf16")
    assert 'dtype: "fp32" -> "bf16"' in line
    assert "seed: 0 -> 1" in line
    assert "0,8" not in line  # more of the same goes on there
    assert "use --out another folder" in line


# --- a folder that may only be read


@pytest.fixture
def read_only(undisturbed: Path, program: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run in a folder that this process may read and not write, which is the current folder."""
    folder = Path(tempfile.mkdtemp(prefix="tomebench-"))
    shutil.copytree(undisturbed, folder / "run")
    for path in (folder, folder / "run"):
        path.chmod(0o555)
    monkeypatch.chdir(folder)
    root = os.geteuid() == 0
    try:
        if root:  # who may write everywhere
            os.setresuid(65534, 65534, 0)
        if os.access(folder, os.W_OK):
            pytest.skip("nothing is read-only for this user")
        yield folder
    finally:
        if root:
            os.setresuid(0, 0, 0)
        for path in (folder, folder / "run"):
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((*EVERY_PHASE, "--out", "new"), "new cannot be used: Permission denied; use --out another folder"),
        (EVERY_PHASE, "run/run.lock cannot be locked (Permission denied); use --out another folder"),
        (("report", "run"), "cannot write the report in run: Permission denied; make room or access"),
        (
            ("check", "run", "--baseline", "b", "--update-baseline", "--quiet"),
            "--baseline b: Permission denied; give a file that can be written",
        ),
    ],
)
def test_a_read_only_folder_is_one_line(program, read_only, command, says):
    assert says in refused(program, *command, code=5)


def test_other_settings_are_refused_before_every_image_is_looked_at(program, tmp_path, monkeypatch):
    assert program(*DIGITS, "--allow-missing", "1").code == 0
    monkeypatch.setattr("tomebench.sweeps.run.usable_images", lambda *_: pytest.fail("it looked"))
    assert "seed: 0 -> 1" in refused(program, *DIGITS, "--allow-missing", "1", "--seed", "1")
