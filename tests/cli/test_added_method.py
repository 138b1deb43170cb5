"""The method of the page about methods, in a package of its own: built, installed, listed, planned and swept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps.forked import Forked

from tomebench.errors import SpecError
from tomebench.reduction import added, registry
from tomebench.reduction.added import AddedMethod, added_methods, code_of

PAGE = (Path(added.__file__).parent / "README.md").read_text().partition("## A method of your own package")[2]
_COUNTED = "--data digits --limit 6 --img-size 28 --budget none --device cpu --batch-size 2 --workers 0 --quiet"
SWEEP = ("sweep", "--model", "digits_vit", "--method", "quiet", "--r", "0,2", *_COUNTED.split(), "--out", "run")
PROGRAM = str(Path(__file__).with_name("added_program.py"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package, as pip installs it; nothing is downloaded."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    (source / "quiet_tokens.py").write_text(re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "install", *offline, "--target", target, source)
    subprocess.run(pip, check=True, capture_output=True)
    return target


@pytest.fixture
def tomebench(installed, tmp_path):
    """Run the program in a fresh process that finds the package."""

    def run(*words):
        paths = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = (sys.executable, "-m", "tomebench", *words)
        env = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def test_it_has_20_lines_and_is_listed(tomebench):
    code = re.search(r"@dataclass.*?```", PAGE, flags=re.DOTALL)[0]
    assert len(code.splitlines()) <= 20
    listed = tomebench("list", "methods")
    assert re.search(r"quiet +added by quiet-tokens 0.1", listed.stdout), listed.stderr
    assert "this page" in tomebench("list", "methods", "quiet").stdout


def test_it_is_swept_and_its_code_is_a_fact_of_the_run(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def sweep():
        """Exit code and what was said, of a process that has not imported the package."""
        program = Forked([PROGRAM, *SWEEP], tmp_path / "errors", {"INSTALLED": str(installed)})
        return program.wait(1000), program.said()

    assert sweep() == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    assert [(row["method"], row["tokens_out"]) for row in rows] == [("quiet", 50), ("quiet", 50 - 2 * 8)]
    module = installed / "quiet_tokens.py"
    before = module.read_text()
    try:
        module.write_text(before + "# another code\n")
        code, said = sweep()
    finally:
        module.write_text(before)
    assert code == 2
    assert "method quiet" in said
    assert said.count("\n") == 1


def test_two_of_one_name_are_refused(monkeypatch):
    twice = (
        AddedMethod("tome", "a:A", "first 1"),
        AddedMethod("x", "a:A", "first 1"),
        AddedMethod("x", "b:B", "second 2"),
    )
    monkeypatch.setattr(registry, "added_methods", lambda: twice)
    with pytest.raises(SpecError, match="method tome is added by first 1 and is of tomebench; uninstall one"):
        registry.method_class("tome")
    with pytest.raises(SpecError, match="method x is added by first 1 and second 2; uninstall one"):
        registry.method_class("x")
    assert registry.methods()["tome"].doc.startswith("Token Merging")


def test_the_digest_is_of_a_whole_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "some_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("A = 1\n")
    before = code_of("some_methods.one:A")
    (package / "helper.py").write_text("B = 2\n")
    assert code_of("some_methods.one:A") != before
    assert code_of("json:loads") == code_of("json.decoder:JSONDecoder")


def test_names_that_no_flag_could_take_are_left_out(monkeypatch):
    odd = [added.metadata.EntryPoint(name, "a:A", added.GROUP) for name in ("a,b", "\x1b[1m", "Up", "fine-1")]
    monkeypatch.setattr(added.metadata, "entry_points", lambda group: odd)
    added_methods.cache_clear()
    try:
        assert [each.name for each in added_methods()] == ["fine-1"]
    finally:
        added_methods.cache_clear()
