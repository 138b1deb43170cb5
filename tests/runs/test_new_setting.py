"""A setting by one declaration is a flag, a key in YAML, part of what a run folder is, and of the protocol."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tomebench

RECIPE = (Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md").read_text().partition("## A setting")[2]
ASKED = """
import json, sys
from tomebench.cli import app
from tomebench.errors import InputError
from tomebench.runs.protocol import unstated
from tomebench.sweeps.config import command_line
from tomebench.sweeps.config_files import load_config
from pathlib import Path

def of(**flags):
    try:
        config = load_config([Path("c.yaml")] if flags.pop("file", None) else [], {"model": "m", **flags})
    except InputError as error:
        return str(error)
    stored = config.stored()
    return {"config": [config.remark, config.patience], "stored": stored, "hash": unstated(stored),
            "again": command_line(stored)}

Path("c.yaml").write_text("remark: from a file\\n")
found = [of(), of(file=True), of(remark=" "), of(patience=3), of(patience=3, data="digits"), of(patience=0)]
app.run(["sweep", "--help-all"])
print("FOUND", json.dumps(found))
"""


def package_with(declaration: str, folder: Path) -> Path:
    """A copy of the package whose class ``Settings`` ends with a declaration."""
    shutil.copytree(
        Path(tomebench.__file__).parent, folder / "tomebench", ignore=shutil.ignore_patterns("__pycache__", "*.npz")
    )
    file = folder / "tomebench" / "runs" / "settings.py"
    text = file.read_text()
    end = "    # fmt: on\n"
    assert text.count(end) == 1
    file.write_text(text.replace(end, textwrap.indent(declaration, "    ") + end))
    return folder


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> tuple[str, list]:
    """What a package with two new settings says: its help, and what it makes of some values."""
    folder = tmp_path_factory.mktemp("package")
    declared = textwrap.dedent(re.search(r" *```python\n(.*?)```", RECIPE, flags=re.DOTALL)[1])
    second = (
        'patience: Annotated[int, Setting("How long to wait.", "S", "Data", check=values.between(1),\n'
        '    needs="patience is about images")] = 9\n'
    )
    environment = {**os.environ, "PYTHONPATH": str(package_with(declared + second, folder)), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    help_, _, found = done.stdout.partition("FOUND ")
    return help_, json.loads(found)


def test_it_is_in_the_help_of_its_panel(asked):
    help_, _ = asked
    panels = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n)+)", help_, flags=re.MULTILINE))
    assert re.search(r"--remark TEXT +A line about the run\.\n", panels["Output"])
    assert re.search(r"--patience S +How long to wait\. \[default: 9\]\n", panels["Data"])


def test_it_is_read_from_flags_and_yaml_and_refused_in_a_line(asked):
    plain, file, empty, _, waiting, least = asked[1]
    assert plain["config"] == [None, 9]
    assert file["config"] == ["from a file", 9]
    assert empty == "--remark ' ': must not be empty"
    assert waiting["config"] == [None, 3]
    assert least == "--patience 0: must be 1 or more"


def test_one_that_is_about_images_is_refused_without_them(asked):
    assert asked[1][3] == "patience is about images, but there are none; add --data, or drop --patience"


def test_a_run_keeps_it_where_it_is_not_at_its_default(asked):
    plain, file, _, _, waiting, _ = asked[1]
    assert plain["stored"] == file["stored"], "identity=False"
    assert not {"remark", "patience"} & {*plain["stored"]}, "or no older run would go on"
    assert waiting["stored"]["patience"] == waiting["hash"]["patience"] == 3
    assert "patience" not in plain["hash"]
    assert waiting["again"] == "tomebench sweep --model m --data digits --patience 3"


def test_without_its_declaration_there_is_none(tmp_path):
    done = subprocess.run([sys.executable, "-c", ASKED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "has no attribute 'remark'" in done.stderr
