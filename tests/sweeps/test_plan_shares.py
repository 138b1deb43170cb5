"""Shares of a plan in processes of their own: joined they are the single run, and what does not belong is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from package_copy import copy_package

from tomebench.cli import app
from tomebench.compare.read import read_runs
from tomebench.errors import ConfigError, InputError
from tomebench.runs.plan_shares import SHARE
from tomebench.runs.store import Store
from tomebench.sweeps.config_files import load_members
from tomebench.sweeps.shares import own_share, plan_share, units

SWEEP = """sweep --model digits_vit --data digits --limit 48 --r 0..24:4 --method tome,random-prune --device cpu
--batch-size 8 --budget none --workers 0 --quiet"""


def members(**settings):
    return load_members([], {"model": "deit_b_16,deit_s_16", "r": "0..24", **settings})


def names(found):
    return [member.name for member in found]


def test_runs_are_dealt_out_and_split_where_there_are_too_few():
    assert names(own_share(members(share="1/2"))) == ["deit_b_16"]
    assert names(own_share(members(share="2/2"))) == ["deit_s_16"]
    parts = units(members(share="1/4"))
    assert names(parts) == [f"{model}-cells-{i}-of-2" for model in ("deit_b_16", "deit_s_16") for i in (1, 2)]
    alone = load_members([], {"model": "vit_b_16", "r": "0..24", "share": "3/3"})
    assert names(own_share(alone)) == ["cells-3-of-3"]
    assert own_share(alone)[0].config.reference == "vit_b_16"  # by which the parts compare
    every = [own_share(members(share=f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(name for each in every for name in names(each)) == sorted(names(units(members(share="1/3"))))
    assert own_share(members()) == members()


def test_all_shares_are_of_one_plan():
    plans = {plan_share(members(share=f"{i}/3")).plan for i in (1, 2, 3)}
    assert len(plans) == 1
    assert plan_share(members(share="1/3", batch_size=4)).plan not in plans
    assert plan_share(members()) is None


@pytest.mark.parametrize("share", ["0/3", "4/3", "3", "1/0"])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="use i/n with i from 1 to n"):
        members(share=share)


def test_parts_are_not_dealt_out_twice():
    with pytest.raises(ConfigError, match="cells and share both deal out a sweep"):
        own_share(members(share="1/2", cells="1/2"))


def run(*more: str) -> None:
    assert app.run([*SWEEP.split(), *more]) == 0


def counts(folders: list[Path]) -> dict[tuple[str, int], tuple[int | None, ...]]:
    rows = [each.row for each in read_runs(folders)[0]]
    return {
        (row.method, row.r): (row.top1_correct, row.n_seen, row.top1_lost, row.top1_gained, row.agreed, row.ties)
        for row in rows
    }


def test_three_shares_make_the_single_run(tmp_path, capsys):
    run("--out", str(tmp_path / "single"))
    joined = tmp_path / "joined"
    run("--share", "1/3", "--out", str(joined))
    _, remarks = read_runs([joined])
    assert any("2 are missing: cells-2-of-3, cells-3-of-3 (--share 2/3, --share 3/3)" in text for text in remarks)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    killed = [sys.executable, "-m", "tomebench", *SWEEP.split(), "--share", "2/3", "--out", str(joined)]
    with subprocess.Popen(killed, env=environment, stderr=subprocess.PIPE) as process:
        store = joined / "cells-2-of-3" / "run.sqlite"
        while process.poll() is None and not (store.exists() and begun(store.parent)):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    run("--share", "2/3", "--out", str(joined))
    run("--share", "3/3", "--out", str(joined))
    assert counts([joined]) == counts([tmp_path / "single"])
    assert not any("missing" in text for text in read_runs([joined])[1])
    copied = tmp_path / "copy"
    copied.mkdir()
    (copy_package(copied) / "runs" / "added.py").write_text('"""Another code tree."""\n')
    other = [sys.executable, "-m", "tomebench", *SWEEP.split(), "--share", "3/3", "--out", str(copied / "other")]
    environment["PYTHONPATH"] = os.pathsep.join([str(copied), environment["PYTHONPATH"]])
    assert subprocess.run(other, cwd=copied, env=environment, capture_output=True, check=False).returncode == 0
    parts = [joined / "cells-1-of-3", joined / "cells-2-of-3", copied / "other" / "cells-3-of-3"]
    with pytest.raises(InputError, match=r"was measured with another code than .* shares of one plan need the same"):
        read_runs(parts)
    with pytest.raises(InputError, match="are the same run of a plan; name one of them"):
        read_runs([joined, shutil.copytree(joined / "cells-1-of-3", tmp_path / "again")])
    assert app.run(["compare", *map(str, parts)]) == 2
    assert "repeat that share" in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--nproc-per-node", "2"), ("--processes", "2", "--budget", "quick")])
def test_processes_of_a_share_remember_the_plan(tmp_path, more):
    out = tmp_path / "plan"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "tomebench", *SWEEP.split(), "--limit", "8", "--r", "0,8,16", "--method", "tome"]
    command += ["--share", "2/2", "--out", str(out), *more]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    with Store.read(out / "cells-2-of-2") as store:
        fact = store.get(SHARE)
    assert (fact["share"], fact["run"], fact["runs"]) == ("2/2", "cells-2-of-2", ["cells-1-of-2", "cells-2-of-2"])


def begun(folder: Path) -> bool:
    try:
        with Store.read(folder) as store:
            return bool(store.done_chunks())
    except Exception:  # noqa: BLE001 (it is being written)
        return False
