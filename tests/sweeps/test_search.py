"""A search of the embedded model: the schedule keeps the limit, costs least, and is judged on images of its own."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits_runs import DIGITS
from even_clock import EvenClock

from tomebench.cli import app
from tomebench.compare.searched import Searched, searched
from tomebench.errors import ConfigError, Interrupted
from tomebench.identity import code_digest
from tomebench.measure.testbed import describe
from tomebench.report.searched import as_json, sentences
from tomebench.runs.race_facts import RaceFacts, half
from tomebench.runs.stairs import Stair
from tomebench.runs.store import Store
from tomebench.runs.top1 import NO_PREDICTION
from tomebench.sweeps import accuracy, search, timing
from tomebench.sweeps.cells import resolve_sweep
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished, Planned, Progress
from tomebench.sweeps.staircase import Staircase, unlike, write_staircase

N = 96
SETTINGS: dict[str, Any] = {**DIGITS, "r": "0,12,24", "limit": N, "max_drop": 4.0}
TRIES = 8


def run(out: Path, should_stop: Callable[[], bool] = lambda: False, **more: Any) -> Searched:
    tries = more.pop("tries", TRIES)
    config = load_config([], {**SETTINGS, "out": out, **more})
    search.check_search(config, tries)
    for event in search.run_search(config, out, should_stop, tries=tries):
        assert not isinstance(event, Planned | Finished)
    return searched(out, config.goal)


def plain(found: Searched) -> str:
    return re.sub(r'"run": "[^"]*"', "", json.dumps(as_json(found), allow_nan=False))


def evaluated(out: Path) -> dict[str, set[int]]:
    with Store.read(out) as store:
        return {key: {*found} for key, found in store.top1().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search") / "run"


@pytest.fixture(scope="module")
def found(folder: Path) -> Searched:
    return run(folder)


def test_what_is_found_costs_least_and_keeps_the_limit(found):
    assert found.facts is not None
    assert found.found is not None
    assert 0 < found.facts.made <= TRIES + search.GENERATION - 1
    assert any(race.rejected for race in found.facts.races)
    assert found.found.keeps is None or found.found.keeps
    assert found.found.choice.n == half(N)
    assert found.found.choice.drop <= 4
    assert {each.name for each in found.rivals} == {"constant", "decreasing"}
    for rival in found.rivals:
        assert found.found.measured.row.gmacs <= rival.candidate.measured.row.gmacs
        assert rival.candidate.choice.drop <= 4
    assert found.beaten is (found.found.estimate.drop <= 4)
    assert "fewer MACs than constant r=24, the best constant r; its loss differs by " in sentences(found)[1]
    assert "the best decreasing r" in sentences(found)[2]


def test_nothing_is_reported_on_images_that_chose(found, folder):
    """Only what the search ended with has been run on the other half, and all of it."""
    others = {*range(half(N) // 16, N // 16)}
    finalists = {found.facts.found, *found.facts.rivals}
    with Store.read(folder) as store:
        baseline = next(cell.key for cell, _ in store.cells() if cell.is_baseline)
    for key, batches in evaluated(folder).items():
        assert batches & others == (others if key in finalists or key == baseline else set())
    for each in (found.found, *(rival.candidate for rival in found.rivals)):
        assert each.estimate.n == N - half(N)
    for rival in found.rivals:
        assert rival.loss is None or rival.loss.n == N - half(N)


def test_what_happens_on_the_others_never_changes_what_is_found(found, folder, tmp_path, monkeypatch):
    """The planted overfit: every schedule is always wrong elsewhere, and that is what is reported."""
    with Store.read(folder) as store:
        baseline = next(cell.key for cell, _ in store.cells() if cell.is_baseline)
    real = accuracy.predict

    def unlucky(models, batch, prepare):
        chunk = real(models, batch, prepare)
        if chunk.index < half(N) // 16:
            return chunk
        wrong = {
            key: own if key == baseline else dataclasses.replace(own, top1=(own.top1 + np.uint16(1)) % 10)
            for key, own in chunk.predictions.items()
        }
        return dataclasses.replace(chunk, predictions=wrong)

    monkeypatch.setattr(accuracy, "predict", unlucky)
    other = run(tmp_path / "run")
    assert other.facts == found.facts
    assert other.found.choice == found.found.choice
    assert other.answer.verdict == "surely not"
    assert other.found.estimate.drop > 50
    assert "surely more than 4 points: the choice was lucky" in sentences(other)[0]


def test_a_search_that_was_stopped_goes_on_to_the_same_end(found, folder, tmp_path):
    stopped = 0
    for moments in (25, 40):
        calls = iter(range(1000))
        try:
            run(tmp_path / "run", lambda calls=calls, moments=moments: next(calls) >= moments)
        except Interrupted:
            stopped += 1
    assert stopped == 2
    again = run(tmp_path / "run")
    assert plain(again) == plain(found)
    assert evaluated(tmp_path / "run") == evaluated(folder)


def test_once_more_in_its_folder_nothing_is_evaluated(found, folder):
    before = evaluated(folder)
    with Store.read(folder) as store:
        chunks = store.done_chunks()
    config = load_config([], {**SETTINGS, "out": folder})
    events = [*search.run_search(config, folder, lambda: False, tries=TRIES)]
    assert not any(isinstance(each, Progress) and each.phase == "accuracy" for each in events)
    assert plain(searched(folder, config.goal)) == plain(found)
    assert evaluated(folder) == before
    with Store.read(folder) as store:
        assert store.done_chunks() == chunks


def cells_of(folder: Path) -> dict[tuple[str, int], str]:
    with Store.read(folder) as store:
        return {(cell.schedule, cell.r): cell.key for cell, _ in store.cells()}


def spoilt(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[int, str, Any], Any]) -> None:
    """Change predictions as they are made: of a batch by its index, and a cell by its key."""
    real = accuracy.predict

    def predict(models, batch, prepare):
        chunk = real(models, batch, prepare)
        predictions = {key: spoil(chunk.index, key, own) for key, own in chunk.predictions.items()}
        return dataclasses.replace(chunk, predictions=predictions)

    monkeypatch.setattr(accuracy, "predict", predict)


def test_where_no_constant_r_keeps_the_limit_a_search_goes_on_all_the_same(folder, tmp_path, monkeypatch):
    constants = {key for (schedule, r), key in cells_of(folder).items() if schedule == "constant" and r}

    def spoil(index, key, own):
        return dataclasses.replace(own, top1=(own.top1 + np.uint16(1)) % 10) if key in constants else own

    spoilt(monkeypatch, spoil)
    whole = run(tmp_path / "whole")
    assert whole.facts.constant is None
    assert whole.facts.races[0].chosen is None
    assert "No constant r keeps the limit" in sentences(whole)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", lambda: next(calls) >= 30)
    again = run(tmp_path / "run")
    assert plain(again) == plain(whole)
    fewer = run(tmp_path / "run", tries=0)  # what was tried is not forgotten
    assert fewer.facts.races == whole.facts.races


def test_a_finalist_that_fails_elsewhere_ends_in_words(found, folder, tmp_path, monkeypatch):
    """NaN for one image that had no part in the search: nothing is said of it, and nothing crashes."""

    def spoil(index, key, own):
        if key != found.facts.found or index < half(N) // 16:
            return own
        top1 = own.top1.copy()
        top1[0] = NO_PREDICTION
        return dataclasses.replace(own, top1=top1, nonfinite=1)

    spoilt(monkeypatch, spoil)
    other = run(tmp_path / "run")
    assert other.facts.races == found.facts.races
    assert other.found is None
    assert sentences(other)
    assert other.answer.chosen is None or other.answer.chosen.measured.key != found.facts.found


def test_a_search_that_was_stopped_at_once_takes_other_settings(tmp_path):
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", lambda: next(calls) >= 1)
    found = run(tmp_path / "run", batch_size=32, tries=0)
    assert found.found.measured.row.batch_size == 32


def test_what_is_saved_is_a_configuration_of_sweep(found, folder, tmp_path):
    row = found.found.measured.row
    config = load_config([], {**SETTINGS, "out": folder, "dtype": "bf16", "metric": "x"})
    (tmp_path / "schedule.yaml").write_text(search.saved(config, row.schedule, row.r))
    read = load_config([tmp_path / "schedule.yaml"], {})
    assert (read.model, read.schedule, read.dtype, read.metric) == ("digits_vit", row.schedule, "bf16", "x")
    assert (read.data, read.max_drop, read.out) == (None, 1.0, None)
    (tmp_path / "schedule.yaml").write_text(search.saved(config, "constant", 8))
    read = load_config([tmp_path / "schedule.yaml"], {})
    assert (read.schedule, read.r_values) == ("constant", (0, 8))


def made_staircase(**other: Any) -> Staircase:
    """A block of the embedded model that is three times as fast at 160 tokens and fewer, whatever is removed."""
    stairs = [
        Stair(n, *((float(1 if n <= 160 else 3),) * 6 for _ in range(3)), removal=(1e-6,) * 6) for n in range(3, 198)
    ]
    threads = torch.get_num_threads()
    facts = {"model": CELL.model, "img_size": 56, "batch_size": 16, "dtype": "fp32", "device": "cpu", "depth": 8}
    more = {"attention": "auto", "layer": 4, "code": code_digest(), "testbed": describe(torch.device("cpu"), threads)}
    return Staircase(**{**facts, **more, "stairs": tuple(stairs), "removal": "tome prop_attn=True", **other})


CELL = resolve_sweep(load_config([], {"model": "digits_vit", "r": "8", "device": "cpu", "batch_size": 16}))[-1].cell


def test_the_staircase_says_what_is_faster(tmp_path):
    """All that a schedule gains here is to reach 160 tokens early; MACs would have it remove as many as it can."""
    config = load_config([], {**SETTINGS, "out": tmp_path, "budget": "quick"})
    space = search._space(config, made_staircase())
    found = [space.cost(space.trace(each).tokens) for each in ((40, *[0] * 7), (8,) * 8, (3,) * 8)]
    assert found == pytest.approx([4 + 7 * 2, 4 * 6 + 4 + 3 * 2, 8 * 6], abs=1e-3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "deit_tiny_patch16_224"}, f"model (deit_tiny_patch16_224, not {CELL.model})"),
        ({"batch_size": 8}, "batch_size (8, not 16)"),
        ({"removal": ""}, "removal (none, not tome prop_attn=True)"),
        ({"code": "0"}, "version of tomebench"),
        ({"testbed": {"threads": 1}}, "machine, or of other libraries or threads"),
    ],
)
def test_a_staircase_of_something_else_is_refused(other, message):
    threads = torch.get_num_threads()
    assert unlike(made_staircase(), CELL, threads) == ""
    assert unlike(made_staircase(**other), CELL, threads) == message


def test_more_tries_go_on_in_the_same_folder(tmp_path, monkeypatch):
    """Timed: whatever a search ends with is timed in rounds that have all of it."""
    monkeypatch.setattr(timing, "clock_for", lambda device: EvenClock())
    out = tmp_path / "run"
    given = {"budget": "quick", "limit": 64, "r": "0,16,24", "max_drop": 20.0}
    config = load_config([], {**SETTINGS, "out": out, **given})

    def searching(tries: int) -> Searched:
        for _ in search.run_search(config, out, lambda: False, tries=tries, staircase=made_staircase()):
            pass
        return searched(out, config.goal)

    other = made_staircase(batch_size=8)
    with pytest.raises(ConfigError, match="--staircase is of another batch_size"):
        [*search.run_search(config, out, lambda: False, tries=0, staircase=other)]
    first, more = searching(0), searching(8)
    assert (first.facts.made, more.facts.made) == (0, 8)
    assert more.facts.races[:3] == first.facts.races
    for found in (first, more):
        assert found.facts.by == "staircase"
        assert found.timed
        for rival in found.rivals:
            same = rival.candidate.measured.key == found.facts.found
            assert (rival.speed is None) is same
    with Store.read(out) as store:
        timed = {key for round_ in store.rounds() for key in round_.counted if len(key) > 10}
        lists = {cell.key for cell, _ in store.cells() if cell.schedule.startswith("list:")}
    assert len(timed & lists) <= 1
    with pytest.raises(ConfigError, match="is timed, and --budget none goes by MACs"):
        run(out, **{**given, "budget": "none"})


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["search", *arguments])
        return (code, *capsys.readouterr())

    return call


FLAGS = ("--model", "digits_vit", "--data", "digits", "--limit", "32", "--device", "cpu", "--budget", "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "digits_vit"), "search counts what is lost, and there are no images; add --data"),
        ((*FLAGS, "--min-speedup", "2"), "search looks for the fastest within a loss"),
        ((*FLAGS, "--max-drop", "1", "--max-latency-ms", "2"), "search looks for the fastest within a loss"),
        ((*FLAGS, "--method", "tome,pitome"), "search is about one method with one set of options"),
        ((*FLAGS, "--metric", "k,q"), "search is about one method with one set of options"),
        ((*FLAGS, "--ablate"), "search is about one method with one set of options"),
        ((*FLAGS, "--schedule", "constant,list:8,8,8,8,8,8,8,8"), "search makes the lists of r itself"),
        ((*FLAGS, "--until", "all"), "a search is one run that says itself what it evaluates; drop --until"),
        ((*FLAGS, "--share", "1/2"), "a search is one run that says itself what it evaluates; drop --share"),
        ((*FLAGS[:-2], "--processes", "2"), "search times in one process; take another --budget"),
        ((*FLAGS, "--budget", "publish"), "search times in one process; take another --budget"),
        ((*FLAGS, "--budget", "quick", "--end-to-end"), "search times passes alone; drop --end-to-end"),
        ((*FLAGS, "--r", "0"), "search needs values of r to start from"),
        ((*FLAGS, "--tries", "-1"), "--tries -1: give a whole number from 0"),
        ((*FLAGS, "--staircase", "nowhere.json"), "cannot read nowhere.json"),
        ((*FLAGS[:-2], "--compile"), "search times blocks alone, eagerly"),
        ((*FLAGS[:-4], "--mode", "train"), "mode train measures the speed of a training step"),
    ],
)
def test_bad_input_is_one_line(program, tmp_path, arguments, message):
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert [*tmp_path.iterdir()] == []


def test_the_command_as_a_new_user_runs_it(program):
    flags = (*FLAGS, "--r", "0,24", "--max-drop", "30", "--tries", "4", "--quiet")
    code, out, err = program(*flags)
    assert (code, err) == (0, "")
    folder = Path("results/search-digits_vit-tome")
    assert "written: results/search-digits_vit-tome/search.md" in " ".join(out.split())
    assert "Take " in (folder / "search.md").read_text()
    config = load_config([folder / "schedule.yaml"], {})
    code, text, _ = program(*flags, "--json")
    answer = json.loads(text)
    assert (code, answer["run"]) == (0, str(folder))
    assert answer["found_schedule"]["schedule"] == config.schedule
    assert answer["sentence"] in (folder / "search.md").read_text().replace("\n", " ")
    with Store.read(folder) as store:
        assert RaceFacts.of(store).chosen == answer["search"]["found"]


def test_where_no_r_keeps_the_limit_r_0_stays(program):
    """And nothing is left of what was found within a wider limit in the same folder."""
    flags = ("--limit", "96", "--method", "random-prune", "--r", "0,24", "--tries", "0", "--quiet")
    code, out, _ = program(*FLAGS[:4], *FLAGS[6:], *flags, "--max-drop", "80")
    configuration = Path("results/search-digits_vit-random-prune/schedule.yaml")
    assert (code, configuration.exists()) == (0, True)
    assert "schedules were run on images" in out
    code, out, _ = program(*FLAGS[:4], *FLAGS[6:], *flags, "--max-drop", "0")
    assert (code, configuration.exists()) == (0, False)
    assert out.strip().startswith("Stay with r=0: no row keeps a loss of at most 0 points")
    assert "schedules were run on images" not in out


def test_a_staircase_given_with_macs_is_refused(program, tmp_path):
    write_staircase(tmp_path / "stairs.json", made_staircase())
    code, _, err = program(*FLAGS, "--staircase", "stairs.json")
    assert code == 2
    assert "budget none goes by MACs, not by times; drop --staircase, or --budget none" in err
