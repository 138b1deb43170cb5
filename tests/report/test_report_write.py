"""Files are whole or untouched, and the summary reads as written."""

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path

import pytest
from report_rows import make_row, make_sweep

from tomebench.errors import StorageError
from tomebench.report import write
from tomebench.report.frames import read_csv, to_frame
from tomebench.report.text import context_for
from tomebench.report.write import summary_text, write_reports

GOLDEN = Path(__file__).with_name("summary_golden.md")
NAMES = ["table.csv", "rows.jsonl", "figure.png", "summary.md"]


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_snapshot_sees_hidden_and_changed_files(tmp_path):
    (tmp_path / ".x").write_bytes(b"1")
    before = snapshot(tmp_path)
    (tmp_path / ".x").write_bytes(b"2")
    assert snapshot(tmp_path) != before


def test_all_files_are_written_and_read_back(tmp_path):
    rows = make_sweep()
    written = write_reports(tmp_path / "new" / "run", rows, context_for(rows, "Demo"))
    assert [path.name for path in written] == NAMES
    assert sorted(snapshot(tmp_path / "new" / "run")) == sorted(NAMES)  # no temporary file is left
    assert read_csv(written[0]).equals(to_frame(rows))
    assert [json.loads(line)["r"] for line in written[1].read_text().splitlines()] == [0, 4, 8, 16, 20]


def test_writing_again_gives_the_same_bytes(tmp_path):
    rows = make_sweep()
    write_reports(tmp_path, rows, context_for(rows, "Demo"))
    before = snapshot(tmp_path)
    write_reports(tmp_path, rows, context_for(rows, "Demo"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("broken", [1, 2, 3, 4])
def test_a_full_disk_leaves_earlier_files_as_they_were(tmp_path, monkeypatch, broken):
    rows = make_sweep()
    write_reports(tmp_path, rows, context_for(rows, "Demo"))
    before = snapshot(tmp_path)
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) == broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write, "_sync", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write_reports(tmp_path, rows[:2], context_for(rows, "Other"))
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_nan_leaves_earlier_files_as_they_were(tmp_path):
    rows = make_sweep()
    write_reports(tmp_path, rows, context_for(rows, "Demo"))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="top1"):
        write_reports(tmp_path, [make_row(8, top1=float("nan"))], context_for([], "Demo"))
    assert snapshot(tmp_path) == before


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run\nx").write_text("")
    with pytest.raises(StorageError, match=r"run\\nx: File exists; make room or access"):
        write_reports(tmp_path / "run\nx", [], context_for([], "Demo"))


def test_without_matplotlib_the_summary_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    rows = make_sweep()
    written = write_reports(tmp_path, rows, context_for(rows, "Demo"))
    assert [path.name for path in written] == ["table.csv", "rows.jsonl", "summary.md"]
    assert "matplotlib is not installed" in written[-1].read_text()
    assert "figure.png" not in written[-1].read_text()


def test_no_rows(tmp_path):
    written = write_reports(tmp_path, [], context_for([], "Empty"))
    assert written[-1].read_text() == "# Empty\n\nNo rows.\n\nno figure: no row has a speed-up against r = 0.\n"


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "a|b<script>", "::error::x", "\x1b[31m", "x\n# y", "[a](b)"])
def test_names_are_inert_in_the_summary(name):
    rows = [dataclasses.replace(row, model=name, error=name, testbed=name) for row in make_sweep()]
    text = summary_text(rows, context_for(rows, name, command=f"tomebench {name}"))
    assert text.replace("\n", "").isprintable()
    assert "<script>" not in "".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "](b)" not in "".join(line for line in text.splitlines() if not line.startswith("    ")).replace(
        "\\](b)", ""
    )
    assert text.count("\n# ") == 0
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def test_summary_golden():
    rows = make_sweep()
    assert summary_text(rows, context_for(rows, "demo", command="tomebench demo --seed 0")) == GOLDEN.read_text(
        encoding="utf-8"
    )
