"""What importing costs and how modules hang together: no torch in stores and reports, no circle, no file too long."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tomebench

LONGEST = 350
"""Lines that a file of the package may have."""


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import tomebench", {"torch", "timm", "pandas", "numpy", "pydantic", "typer"}),
        ("import tomebench.schema, tomebench.stats, tomebench.rspec, tomebench.errors", {"torch", "timm", "pandas"}),
        ("import tomebench.runs.store, tomebench.runs.rows, tomebench.report.write", {"torch", "pandas", "typer"}),
        ("import tomebench.compare.questions, tomebench.report.compared_figure", {"torch", "pandas", "typer"}),
        ("import tomebench.sweeps.config, tomebench.cli.report, tomebench.cli.compare", {"torch", "timm", "pandas"}),
        ("import tomebench.cli.results", {"torch", "timm", "pandas"}),
        ("import tomebench.reduction.vit", {"timm", "pandas", "torchvision"}),
        ("import tomebench.cli.plan, tomebench.sweeps.members", {"pandas", "matplotlib", "scipy", "datasets"}),
    ],
)
def test_heavy_libraries_stay_out(statement, absent):
    assert not loaded_by(statement) & absent


def test_loaded_by_sees_what_is_imported():
    assert "json" in loaded_by("import json.decoder")


# --- circles


def imports_of(package: str) -> dict[str, set[str]]:
    """Modules of a package, each with those that it imports, in functions too; what only types need is no import."""
    grimp = pytest.importorskip("grimp", reason="comes with import-linter")

    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(imports: Mapping[str, Set[str]]) -> list[str]:
    """Modules of which each is imported by the one after it, the first being the last; empty if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_in_a_circle():
    imports = imports_of("tomebench")
    assert imports["tomebench.backbones.adapt"] >= {"tomebench.reduction.backbone"}
    assert circle(imports) == []


def test_a_circle_is_found(tmp_path, monkeypatch):
    """Also one that is closed in a function; a type closes none."""
    package = tmp_path / "ringed"
    package.mkdir()
    later = "def later():\n    from ringed import head\n    return head\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ringed.head import Head\n"
    files = {"__init__": "", "head": "import ringed.body\n", "body": "from ringed.tail import x\n", "tail": typed}
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert circle(imports_of("ringed")) == []
    (package / "tail.py").write_text(later)
    assert sorted(set(circle(imports_of("ringed")))) == ["ringed.body", "ringed.head", "ringed.tail"]


# --- length


def too_long(folder: Path) -> dict[str, int]:
    """Files of a folder that are longer than they may be, each with its lines."""
    lines = {str(path.relative_to(folder)): len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    return {name: count for name, count in lines.items() if count > LONGEST}


def test_no_file_is_too_long_to_be_read_at_once():
    assert too_long(Path(tomebench.__file__).parent) == {}


def test_a_file_that_is_too_long_is_found(tmp_path):
    (tmp_path / "short.py").write_text("x = 1\n" * LONGEST)
    (tmp_path / "long.py").write_text("x = 1\n" * (LONGEST + 1))
    assert too_long(tmp_path) == {"long.py": LONGEST + 1}
