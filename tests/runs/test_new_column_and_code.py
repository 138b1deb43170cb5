"""A column by one field, and a warning code by one entry, are in all files and on the screen: as the recipes say it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from package_copy import ROOT, copy_package, run_python

PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
PROGRAM = """
import json, sys
from pathlib import Path
from tomebench.cli import app
from tomebench.report.frames import read_csv

sweep = "--model digits_vit --data digits --limit 6 --r 0,8 --device cpu --threads 1 --batch-size 2 --budget none"
assert app.run(["sweep", *sweep.split(), "--workers", "0", "--out", "run"]) == 0
frame = read_csv(Path("run/table.csv"))
columns = {name: [str(frame[name].dtype), list(map(str, frame[name]))] for name in frame}
Path("frame.json").write_text(json.dumps(columns))
assert app.run(["list", "columns"]) == 0
"""


def follow(title: str, file: Path) -> None:
    """Add the code of a recipe to a file, at the place that the recipe names."""
    recipe = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    block = re.search(r"^( *)```python\n(.*?)```", recipe, flags=re.DOTALL | re.MULTILINE)
    place = re.search(r"this one above\s+`(\w+)`", recipe)
    assert block is not None
    assert place is not None
    code = "".join(line.removeprefix(block[1]) for line in block[2].splitlines(keepends=True))
    text, found = re.subn(rf"^(?= *{place[1]}\b)", lambda _: code, file.read_text(), count=1, flags=re.MULTILINE)
    assert found == 1
    file.write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, in which both recipes are followed, and what it says of a small sweep."""
    home = tmp_path_factory.mktemp("made")
    package = copy_package(home)
    follow("A column", package / "runs" / "row.py")
    follow("A warning code", package / "runs" / "codes.py")
    done = run_python(PROGRAM, home)
    assert done.returncode == 0, done.stderr
    (home / "screen").write_text(done.stdout)
    return home


def rows(made: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made / "run" / "rows.jsonl").read_text().splitlines()]


def test_the_column_is_in_every_file_where_it_was_declared(made: Path) -> None:
    header = (made / "run" / "table.csv").read_text().splitlines()[0].split(",")
    assert header[header.index("tokens_in") + 1] == "tokens_out"
    assert [(row["r"], row["tokens_in"]) for row in rows(made)] == [(0, 197), (8, 197)]
    assert list(rows(made)[0]) == header


def test_the_frame_has_it_with_its_type(made: Path) -> None:
    assert json.loads((made / "frame.json").read_text())["tokens_in"] == ["Int64", ["197", "197"]]


def test_it_is_listed_with_what_it_means(made: Path) -> None:
    (line,) = (each for each in (made / "screen").read_text().splitlines() if each.startswith("tokens_in"))
    assert line.endswith("tokens; tokens before the first block, prefix included")


def test_the_code_is_in_the_warnings_of_the_rows_it_holds_for(made: Path) -> None:
    assert [row["warnings"] for row in rows(made)] == [[], ["FEW_TOKENS"]]
    assert json.loads((made / "frame.json").read_text())["warnings"] == ["string", ["<NA>", "FEW_TOKENS"]]


def test_it_is_in_the_notes_and_below_the_table(made: Path) -> None:
    summary = (made / "run" / "summary.md").read_text()
    table = [line for line in summary.splitlines() if line.startswith("|")][2:4]
    assert ["few tokens" in line for line in table] == [False, True], table
    assert "FEW_TOKENS (r = 8): over a quarter of the tokens are gone after the last block; look at what " in summary
    screen = (made / "screen").read_text()
    assert "FEW_TOKENS (r = 8): over a quarter of the tokens are gone: look at top-1" in screen
