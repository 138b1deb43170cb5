"""The public functions, as a stranger's script calls them: from a fresh interpreter, in any order, more than once."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import tomebench
from tomebench.errors import TomebenchError

SCRIPT = """
import sys
import timm, torch, tomebench, tomebench.errors
from tomebench.runs import budget
from tomebench.measure import clock, speed

clock.CpuClock.min_burst, speed.WINDOW = 0.001, 1
budget.BUDGETS["quick"] = budget.Budget("quick", 6, 100.0, 1.0)
settings = dict(device="cpu", batch_size=2, budget="quick")
rows = tomebench.sweep("test_vit", "0,8", out=sys.argv[1] + "/a", **settings)
table = tomebench.load_results(sys.argv[1] + "/a")
again = tomebench.sweep("test_vit", "0,4", out=sys.argv[1] + "/b", **settings)
assert [row.r for row in rows] == table["r"].tolist() == [0, 8], table
assert [row.r for row in again] == [0, 4]
assert table["img_per_s"].notna().all() and table["top1"].isna().all()

try:
    tomebench.check(None, sys.argv[1] + "/none.json")
except tomebench.TomebenchError as error:
    assert error.exit_code == 4 and "No such file" in str(error), error

model = timm.create_model("test_vit").eval()
merged = tomebench.apply(model, r=8)
assert merged.token_counts == [93, 85, 77, 69, 61, 53], merged.token_counts
assert merged(torch.randn(2, 3, 160, 160)).shape == (2, 1000)
"""


def test_the_public_functions_work_together_in_one_script(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_no_module_hides_a_public_function():
    package = Path(tomebench.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(tomebench.__all__)


def test_the_public_names_are_seen_before_they_are_loaded():
    """By dir and by help, as by the completion of a prompt; the base of all errors without torch."""
    code = (
        "import tomebench, sys; names = dir(tomebench); tomebench.TomebenchError; print(*names, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, torch_loaded = done.stdout.split()
    assert torch_loaded == "False"
    assert set(tomebench.__all__) == {
        *("TomebenchError", "__version__", "advise", "apply", "check", "keep_memory", "load_results", "recommend"),
        "sweep",
    }
    assert set(tomebench.__all__) <= set(names)
    text = pydoc.plain(pydoc.render_doc(tomebench))
    assert all(name in text for name in tomebench.__all__)
    assert tomebench.TomebenchError is TomebenchError


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        tomebench.swep  # noqa: B018


def test_a_sweep_is_run_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What comes after the rows tells other processes that all is well."""
    from tomebench.sweeps import run
    from tomebench.sweeps.events import Finished

    ended = []

    def events(*_: object, **__: object):
        yield Finished((), tmp_path)
        ended.append(True)

    monkeypatch.setattr(run, "run_sweep", events)
    assert tomebench.sweep("test_vit", "0,8", out=tmp_path) == []
    assert ended == [True]
