"""A setting by one declaration is a flag, a key in YAML, part of what a run folder is, and of the protocol."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from package_copy import ROOT, copy_package, run_python

RECIPE = (ROOT / ".github" / "CONTRIBUTING.md").read_text().partition("## A setting")[2]
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


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> tuple[str, list]:
    """What a package with two new settings says: its help, and what it makes of some values."""
    folder = tmp_path_factory.mktemp("package")
    declared = textwrap.dedent(re.search(r" *```python\n(.*?)```", RECIPE, flags=re.DOTALL)[1])
    second = (
        'patience: Annotated[int, Setting("How long to wait.", "S", "Data", check=values.between(1),\n'
        '    needs="patience is about images, but there are none")] = 9\n'
    )
    file, end = copy_package(folder) / "runs" / "settings.py", "    # fmt: on\n"
    before, _, after = file.read_text().partition(end)
    assert after
    file.write_text(before + textwrap.indent(declared + second, "    ") + end + after)
    done = run_python(ASKED, folder)
    assert done.returncode == 0, done.stderr
    help_, _, found = done.stdout.partition("FOUND ")
    return help_, json.loads(found)


def test_it_is_in_the_help_of_its_panel(asked):
    help_, _ = asked
    panels = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n)+)", help_, flags=re.MULTILINE))
    assert re.search(r"--remark TEXT +A remark\.\n", panels["Output"])
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
    copy_package(tmp_path)
    assert "has no attribute 'remark'" in run_python(ASKED, tmp_path).stderr
