"""Lists of models, sizes, dtypes and batch sizes: a run for each combination, compared by one reference."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from hurry import hurry
from hypothesis import given
from hypothesis import strategies as st

import tomebench
from tomebench.errors import ConfigError, InputError, ModelError, RunError
from tomebench.report.frames import read_csv
from tomebench.runs.members import member_runs
from tomebench.runs.rows import build_rows
from tomebench.runs.settings import settings
from tomebench.runs.store import Store
from tomebench.schema import REFERENCE
from tomebench.sweeps import members as of_sweep
from tomebench.sweeps.config_files import AXES, load_config, load_members
from tomebench.sweeps.resume import choose_parent

PROGRAM = Path(__file__).with_name("sweep_program.py")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a", "b", "c_16", "hf-hub:o/n"]),
    "img_size": st.integers(16, 512),
    "dtype": st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    "batch_size": st.one_of(st.just("auto"), st.integers(1, 512)),
}


def test_axes_are_those_that_are_declared() -> None:
    assert {*AXES} == {*VALUES} == {name for name, setting in settings().items() if setting.axis}


@given(st.fixed_dictionaries({name: st.lists(each, min_size=1, max_size=3) for name, each in VALUES.items()}))
def test_every_combination_is_a_run_of_its_own(lists: dict[str, list[Any]]) -> None:
    lists = {name: lists[name] for name in AXES}
    members = load_members([], lists)
    asked = [dict(zip(lists, each, strict=True)) for each in itertools.product(*map(dict.fromkeys, lists.values()))]
    assert [{name: getattr(member.config, name) for name in lists} for member in members] == asked
    assert len({member.name for member in members}) == len(members)
    assert (members[0].name == "") == (len(members) == 1)
    texts = {name: ",".join(map(str, each)) for name, each in lists.items()}
    assert load_members([], texts) == members
    sizes = {(each["model"], each["img_size"]) for each in asked}
    first = f"{lists['model'][0]}@{lists['img_size'][0]}" if len(sizes) > 1 else None
    assert {member.config.reference for member in members} == {first}


def test_runs_are_named_by_what_differs() -> None:
    def named(**lists: str) -> list[str]:
        return [member.name for member in load_members([], {"model": "a", **lists})]

    assert named(img_size="224,192") == ["224px", "192px"]
    assert named(model="a,hf-hub:o/n", dtype="fp32,bf16") == ["a-fp32", "a-bf16", "hf-hub-o-n-fp32", "hf-hub-o-n-bf16"]
    assert named(model="o/n,o-n", batch_size="1,auto") == ["o-n-b1-1", "o-n-bauto-2", "o-n-b1-3", "o-n-bauto-4"]
    assert load_members([], {"model": "a,b"})[1].config.reference == "a"
    assert load_members([], {"model": "a,b", "reference": "c@96"})[1].config.reference == "c@96"


def test_presets_of_mae_are_without_proportional_attention_in_a_list_too() -> None:
    alone = [load_config([], {"model": name}).prop_attn for name in ("vit_b_16", "mae_vit_b_16")]
    assert [member.config.prop_attn for member in load_members([], {"model": "vit_b_16,mae_vit_b_16"})] == alone


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"model": "a,"}, "model 'a,': one of its values is empty; leave it out"),
        ({"model": "a", "img_size": "224,x"}, "img_size 'x': must be a whole number"),
        ({"model": "a", "dtype": "fp32,int8"}, "dtype 'int8': use fp32, tf32, bf16 or fp16"),
        ({"model": "a", "batch_size": [1, 0]}, "batch_size 0: use auto, or a whole number from 1 to 65536"),
        ({"img_size": "64,48"}, "no model is given; add --model"),
        ({"model": "a,b", "checkpoint": Path("w.pth")}, "checkpoint is the weights of one model; give one --model"),
        ({"model": "a", "reference": "@"}, None),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(asked: dict[str, Any], says: str | None) -> None:
    if says is None:
        assert load_members([], asked)[0].config.reference == "@"  # a model of that name is not known, as it says later
        return
    with pytest.raises(ConfigError) as error:
        load_members([], asked)
    assert says in str(error.value).replace("--img-size", "img_size").replace("--dtype", "dtype").replace(
        "--batch-size", "batch_size"
    )
    assert "\n" not in str(error.value)


def test_commands_of_one_run_refuse_lists() -> None:
    with pytest.raises(
        ConfigError, match="--model has several values, of which only sweep and plan make runs; give one"
    ):
        load_config([], {"model": "a,b"})
    assert load_config([], {"model": ["a"], "img_size": "96"}).img_size == 96


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"img_size": "64,8"}, "8 pixels"),
        ({"model": "test_vit,test_vi"}, "unknown model 'test_vi'"),
        ({"img_size": "64,48", "reference": "test_vi"}, "reference test_vi: unknown model"),
    ],
)
def test_what_one_run_would_refuse_is_refused_before_the_first(
    tmp_path: Path, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelError) as error:
        tomebench.sweep(**{"model": "test_vit", **asked}, r="0,2", device="cpu", out=tmp_path / "out")
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_files_of_others_are_no_folder_of_runs(tmp_path: Path) -> None:
    """The table of all runs would overwrite them; a run below makes the folder a sweep's own."""
    asked: dict[str, Any] = {"r": "0", "device": "cpu", "out": tmp_path / "out"}
    members = load_members([], {"model": "test_vit", "img_size": "64,48", **asked})
    (tmp_path / "out" / "64px").mkdir(parents=True)
    assert choose_parent(members) == (tmp_path / "out", None), "a run that was killed before it had a file"
    (tmp_path / "out" / "table.csv").write_text("mine")
    for choose in (choose_parent, lambda these: tomebench.sweep("test_vit", img_size=[64, 48], **asked)):
        with pytest.raises(RunError, match=r"holds no runs but other files \('table.csv'\); use --out an empty"):
            choose(members)
    (tmp_path / "out" / "64px" / "run.sqlite").touch()
    assert choose_parent(members) == (tmp_path / "out", None)


def test_a_parent_without_a_name_goes_round_the_files_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = load_members([], {"model": "a", "img_size": "64,48", "device": "cpu"})
    usual = Path("results/a-tome")
    usual.mkdir(parents=True)
    (usual / "notes.txt").touch()
    Path("results/a-tome-2").touch()
    assert choose_parent(members) == (
        Path("results/a-tome-3"),
        f"{usual} holds other files; this one is in results/a-tome-3",
    )


def test_processes_that_share_a_sweep_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="which processes that share a sweep cannot do; start a sweep for each"):
        of_sweep.check_members(load_members([], {"model": "test_vit,test_vit2"}))


def test_runs_are_paired_with_one_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reference is the model of the run itself at its size, r = 0 stands for it."""
    hurry(monkeypatch)
    asked: dict[str, Any] = {"device": "cpu", "threads": 1, "batch_size": 2, "out": tmp_path / "out"}
    rows = tomebench.sweep(["test_vit", "test_vit2"], "0,2", img_size=[64, 48], dtype=("fp32",), **asked)
    folders = member_runs(tmp_path / "out")
    assert [folder.name for folder in folders] == ["test_vit-48px", "test_vit-64px", "test_vit2-48px", "test_vit2-64px"]
    assert {row.reference for row in rows} == {"test_vit@64"}
    assert [(row.run, row.r) for row in rows] == [(folder.name, r) for folder in folders for r in (0, 2)]
    for folder in folders:
        with Store.read(folder) as store:
            timed = [{burst.variant for burst in round_.bursts} for round_ in store.rounds()]
            own = build_rows(store)
        assert all((REFERENCE in each) == (folder.name != "test_vit-64px") for each in timed)
        for row in own:
            if folder.name == "test_vit-64px":
                assert row.speedup_vs_reference == row.speedup_vs_r0
                assert row.speedup_vs_reference_lo == row.speedup_vs_r0_lo
            else:
                assert row.speedup_vs_reference not in (None, row.speedup_vs_r0)
    table = read_csv(tmp_path / "out" / "table.csv")
    assert table["run"].tolist() == [row.run for row in rows]
    assert tomebench.load_results(tmp_path / "out")["speedup_vs_reference"].tolist() == [
        row.speedup_vs_reference for row in rows
    ]
    assert "cells of one run share rounds" in (tmp_path / "out" / "summary.md").read_text()
    with pytest.raises(InputError, match="holds no run but other files"):
        tomebench.sweep("test_vit", "0,2", **asked)
    with pytest.raises(InputError, match="holds a run, and this sweep makes 2 below it; use --out another folder"):
        tomebench.sweep("test_vit,test_vit2", "0,2", **{**asked, "out": folders[0]})


SWEEP = "--model test_vit,test_vit2 --img-size 64,48,32 --method tome,random-prune --r 0,1,2"
SMALL = "--model test_vit --img-size 64,32 --method tome,random-prune --r 0,2"
SURE = ["run", "model", "img_size", "method", "r", "tokens_out", "gmacs", "protocol", "reference", "status"]


def command(sweep: str, out: Path) -> list[str]:
    fast = ("--batch-size", "2", "--device", "cpu", "--threads", "1", "--quiet")
    return [str(PROGRAM), "sweep", *sweep.split(), *fast, "--out", str(out)]


def rounds(out: Path) -> int:
    """Number of rounds of all runs below a folder."""
    found = 0
    for folder in member_runs(out):
        try:
            with Store.read(folder) as store:
                found += len(store.rounds())
        except InputError:
            pass  # the store is not there yet
    return found


@pytest.mark.parametrize(
    ("sweep", "kills", "cells"),
    [
        pytest.param(SMALL, (1, 7), 2 * (1 + 2), id="sizes"),
        # 2 models x 3 sizes x 2 methods x 3 r: within the first run, between runs, and within a later one.
        pytest.param(SWEEP, (1, 6, 15, 31), 2 * 3 * (1 + 2 * 2), id="models and sizes", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_over_several_runs_goes_on_after_kill_9(
    tmp_path: Path, sweep: str, kills: tuple[int, ...], cells: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = Forked(command(sweep, whole), tmp_path / "errors")
    assert (process.wait(1200), process.said()) == (0, "")
    for reached in kills:
        process = Forked(command(sweep, killed), tmp_path / "errors")
        deadline = time.monotonic() + 600
        while rounds(killed) < reached and process.code is None and time.monotonic() < deadline:
            time.sleep(0.03)
        assert process.code is None, process.said()
        process.kill()
        assert not (killed / "table.csv").exists()
    before = rounds(killed)
    process = Forked(command(sweep, killed), tmp_path / "errors")
    assert (process.wait(1200), process.said()) == (0, "")
    assert before >= kills[-1]
    one, other = (read_csv(folder / "table.csv") for folder in (killed, whole))
    assert one[SURE].equals(other[SURE])
    assert len(one) == cells
    assert one["speedup_vs_reference"].notna().all()
    names = [sorted(path.name for path in folder.iterdir()) for folder in (killed, whole)]
    assert names[0] == names[1]
    assert len([json.loads(line) for line in (killed / "rows.jsonl").read_text().splitlines()]) == len(one)
