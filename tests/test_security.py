"""What the source may not contain: ways to run what a file says, loose YAML and JSON, the network, flags for them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from tomebench.cli import app
from tomebench.errors import StorageError
from tomebench.runs.lock import RunLock
from tomebench.sweeps import yaml_file
from tomebench.whole import beside, write_new, write_whole

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "tomebench").rglob("*.py"))

RUNS_FILES = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "os.system",
    "os.popen",
}
NETWORK = {"requests", "httpx", "aiohttp", "urllib", "http", "ftplib"}
ARCHIVES = {"zipfile"}  # tars are indexed and read in place; what extracts them is looked for below
WRITES_JSON = {"dump", "dumps"}


DOORS: dict[str, tuple[str, ...]] = {
    "Image.open": ("datasets/decode.py",),
    "tarfile.open": ("datasets/tar.py",),
    "torch.load": ("models/weights_file.py", "training/state.py"),  # the second of the state that it has written
    "load_file": ("models/weights_file.py",),
    "yaml.load": ("sweeps/yaml_file.py",),
    "sqlite3.connect": ("runs/database.py",),
    # Of this package's own files, of what Linux says of itself, and of a log that this process has written.
    "read_text": (
        "datasets/classes.py",
        "paper/reported.py",
        "measure/cgroup.py",
        "measure/machine.py",
        "gate/remeasure.py",
    ),
    "read_bytes": ("identity.py", "models/weights_file.py"),  # the second of weights with a name that is no text
    "write_text": (),
    "write_bytes": ("whole.py",),
    "savefig": ("report/figures.py", "report/compared_figure.py", "report/staircase.py"),
}
"""Every kind of file is opened in one place, where its rules are: nobody goes round it."""


def round_the_doors(source: str, file: str) -> list[str]:
    """Calls of a module that open a kind of file elsewhere than at its door."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        names = {called, called.rpartition(".")[2]} if isinstance(node.func, ast.Attribute) else {called}
        for name in names & DOORS.keys():
            if isinstance(node.func, ast.Name) and name == "read_bytes":  # the door itself, as it is imported
                continue
            if file not in DOORS[name]:
                found.append(f"{name} in line {node.lineno}")
        modes = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
        writes = called.endswith(".open") and any(str(mode)[:1] in "wax" for mode in modes)
        if writes and file not in ("whole.py", "gate/remeasure.py"):
            found.append(f"open for writing in line {node.lineno}")
    return found


def test_nobody_goes_round_the_doors_for_files() -> None:
    package = ROOT / "tomebench"
    found = {str(path): round_the_doors(path.read_text(), path.relative_to(package).as_posix()) for path in SOURCES}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open(x)",
        "import torch\ntorch.load(x, weights_only=True)",
        "path.read_text()",
        "path.read_bytes()",
        "path.write_text('x')",
        "path.open('wb')",
        "from safetensors.torch import load_file\nload_file(x)",
    ],
)
def test_a_way_round_a_door_is_found(source: str) -> None:
    assert round_the_doors(source, "sweeps/new.py")


def violations(source: str) -> Iterator[str]:
    """What a module must not do, one text a place."""
    if "trust_remote_code" in source:
        yield "trust_remote_code"
    tree = ast.parse(source)
    modules = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"imports {name}" for name in names if name.partition(".")[0] in NETWORK | ARCHIVES)
            if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "json", "yaml", "marshal"):
                yield f"imports names from {node.module}, which hides what is called"
        if isinstance(node, ast.Call):
            yield from _bad_call(node, modules)


def _bad_call(call: ast.Call, modules: dict[str, str]) -> Iterator[str]:
    module, dot, function = ast.unparse(call.func).rpartition(".")
    name = f"{modules.get(module, module)}{dot}{function}"
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in RUNS_FILES or given.get("shell") == "True" or given.get("allow_pickle") == "True":
        yield f"{name} runs what it is given"
    if function in ("extractall", "extract", "unpack_archive"):
        yield f"{name} writes to paths that an archive names"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name.startswith("yaml.") and "load" in function and function != "safe_load" and given.get("Loader") != "_Loader":
        yield f"{name} without the strict loader"
    if name in {f"json.{writes}" for writes in WRITES_JSON} and given.get("allow_nan") != "False":
        yield f"{name} without allow_nan=False"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code"),
        ("import pickle as p\np.load(f)", "pickle.load runs"),
        ("from pickle import loads", "imports names from pickle"),
        ("eval('1')", "eval runs"),
        ("import subprocess as s\ns.run('x', shell=True)", "subprocess.run runs"),
        ("np.load(f, allow_pickle=True)", "runs what it is given"),
        ("import torch\ntorch.load(f)", "without weights_only"),
        ("import torch as t\nt.load(f, weights_only=weights_only)", "without weights_only"),
        ("import yaml\nyaml.load(f, Loader=yaml.Loader)", "without the strict loader"),
        ("import yaml\nyaml.unsafe_load(f)", "without the strict loader"),
        ("import json as j\nj.dumps(x)", "json.dumps without allow_nan=False"),
        ("from urllib.request import urlopen", "imports urllib.request"),
        ("import zipfile", "imports zipfile"),
        ("archive.extractall(path)", "paths that an archive names"),
    ],
)
def test_violations_are_found(source, found):
    assert any(found in text for text in violations(source))


def test_what_is_fine_is_no_violation():
    fine = (
        "import torch, json, yaml\ntorch.load(f, weights_only=True)\njson.dumps(x, allow_nan=False)\nyaml.safe_load(f)"
    )
    assert list(violations(fine)) == []


COMPARED = "texts = [{name: json.dumps(value) for name, value in fields.items()} for fields in (stored, asked)]"
"""The one place where JSON is made and not written: settings are compared with each other."""


def test_the_source_has_none_of_it():
    found = {str(path): list(violations(path.read_text().replace(COMPARED, ""))) for path in SOURCES}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_the_source_was_found():
    assert len(SOURCES) > 80
    assert any("torch.load(" in path.read_text() for path in SOURCES)


def test_the_strict_loader_is_a_safe_one():
    assert issubclass(yaml_file._Loader, yaml.SafeLoader)
    own = {**yaml.SafeLoader.yaml_constructors, "tag:yaml.org,2002:int": yaml_file._Loader.construct_int}
    assert yaml_file._Loader.yaml_constructors == own


def test_torch_is_new_enough_for_weights_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (floor,) = (match for text in project["dependencies"] if (match := re.fullmatch(r"torch>=(\d+)\.(\d+)", text)))
    assert tuple(map(int, floor.groups())) >= (2, 10)


def test_no_flag_weakens_it():
    commands = typer.main.get_command(app.app).commands.values()
    flags = {flag for command in commands for parameter in command.params for flag in parameter.opts}
    assert {"--offline", "--checkpoint"} <= flags
    assert not [flag for flag in flags if re.search("trust|unsafe|pickle|insecure|weights-only|remote", flag)]


def test_files_are_written_through_no_link(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for name in ("new", "run.lock"):
        (tmp_path / name).symlink_to(kept)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "new", "theirs")
    with pytest.raises(StorageError, match="cannot be locked"):
        RunLock.acquire(tmp_path)
    names = {beside(tmp_path / "table.csv").name for _ in range(100)}
    assert len(names) == 100
    write_whole(tmp_path / "new", "theirs")  # which takes the place of the link
    assert kept.read_text() == "mine"
    assert (tmp_path / "new").read_text() == "theirs"
