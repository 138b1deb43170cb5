"""What importing costs: store, rows and reports never pull in torch; the package itself pulls in nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


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
        ("import tomebench.runs.store, tomebench.runs.rows, tomebench.report.write", {"torch", "timm", "typer"}),
        ("import tomebench.sweeps.config, tomebench.cli.report", {"torch", "timm", "pandas"}),
        ("import tomebench.reduction.vit", {"timm", "pandas", "torchvision"}),
    ],
)
def test_heavy_libraries_stay_out(statement, absent):
    assert not loaded_by(statement) & absent


def test_loaded_by_sees_what_is_imported():
    assert "json" in loaded_by("import json.decoder")
