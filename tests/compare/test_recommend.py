"""A recommendation: chosen on one half of the images, reported on the other, the same for the same runs and seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compare.made_runs import FIELD, write_run

import tomebench
from tomebench.cli import app
from tomebench.compare.read import read_runs
from tomebench.compare.recommend import Recommendation, recommend
from tomebench.errors import ConfigError, InputError
from tomebench.report.recommended import as_json, sentence
from tomebench.runs.goal import Goal

N = 1600


def halves(seed: int = 0) -> tuple[list[int], list[int]]:
    """Images of the choice, and the others, as the program draws them."""
    order = sorted(range(N), key=lambda i: hashlib.sha256(f"{seed}/half/{i}".encode()).digest())
    return order[: N // 2], order[N // 2 :]


CHOICE, OTHERS = halves()


def of(folder: Path, goal: Goal, wrong: dict[tuple[str, int], list[int]], seed: int = 0) -> Recommendation:
    write_run(folder, {("tome", 0): [], **wrong}, images=N)
    return recommend(read_runs([folder])[0], goal, seed)


def without_folder(found: Recommendation) -> str:
    return re.sub(r'"run": "[^"]*"', "", json.dumps(as_json(found), allow_nan=False))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Recommendation:
    """r = 4, 8 and 16 lose 0.25, 0.5 and 4 points, as often in both halves."""
    wrong = {4: 4, 8: 8, 16: 64}
    rows = {("tome", r): [*CHOICE[: k // 2], *OTHERS[: k // 2]] for r, k in wrong.items()}
    return of(tmp_path_factory.mktemp("honest") / "run", Goal(2.0), rows)


def test_the_fastest_that_surely_keeps_the_limit(honest):
    assert honest.chosen is not None
    assert (honest.chosen.name, honest.found, honest.verdict) == ("tome r=8", "sure", "surely")
    assert (honest.chosen.estimate.lost, honest.chosen.estimate.n) == (4, N // 2)
    assert [each.name for each in honest.close] == ["tome r=16", "tome r=4"]
    assert sentence(honest) == (
        "Take tome r=8, 1.19x [1.19, 1.19] as fast as r=0: on 800 images that had no part in the choice it loses "
        "0.50 points [0.02, 1.28], surely within 2 points"
    )


def test_a_row_that_is_lucky_on_the_choice_is_found_out_on_the_others(tmp_path):
    """The planted overfit: r = 8 loses nothing where it is chosen, and 5 points elsewhere."""
    found = of(tmp_path / "run", Goal(2.0), {("tome", 4): [], ("tome", 8): OTHERS[: N // 40]})
    assert found.chosen is not None
    assert found.chosen.name == "tome r=8"
    assert found.chosen.choice.lost == 0
    assert (found.chosen.estimate.lost, found.chosen.estimate.n) == (N // 40, N // 2)
    assert found.verdict == "surely not"
    assert "it loses 5.00 points [" in sentence(found)
    assert "surely more than 2 points: the choice was lucky" in sentence(found)


def test_what_happens_on_the_others_never_changes_the_choice(tmp_path):
    rows = {("tome", 4): CHOICE[:2], ("tome", 8): CHOICE[:4]}
    chosen = set()
    for number, k in enumerate((0, 100, 600)):
        more = {key: [*wrong, *OTHERS[:k]] for key, wrong in rows.items()}
        found = of(tmp_path / str(number), Goal(2.0), more)
        chosen.add((found.chosen.name, found.found, found.chosen.choice))
    assert len(chosen) == 1


def test_the_same_run_and_seed_give_the_same_answer_and_another_seed_other_halves(tmp_path):
    rows = {("tome", 4): [*range(20)], ("tome", 8): [*range(0, N, 160)]}
    first, again = (of(tmp_path / name, Goal(2.0), rows) for name in ("a", "b"))
    assert without_folder(first) == without_folder(again)
    assert first.chosen.estimate == again.chosen.estimate
    other = recommend(read_runs([tmp_path / "a"])[0], Goal(2.0), seed=1)
    assert other.chosen.estimate != first.chosen.estimate


def test_where_none_surely_keeps_it_the_fastest_that_seems_to_is_said_to_seem(tmp_path):
    k = N // 200  # a loss of half a point, of which 0.6 cannot be surely above
    found = of(tmp_path / "run", Goal(0.6), {("tome", 8): [*CHOICE[: k // 2], *OTHERS[: k // 2]]})
    assert (found.found, found.verdict) == ("seems", "likely")
    assert found.images is not None
    assert found.images > N
    text = sentence(found)
    assert "no row surely keeps a loss of at most 0.6 points on the images of the choice" in text
    assert f"about {found.images} images would show it" in text


def test_where_none_keeps_it_r_0_stays(tmp_path):
    found = of(tmp_path / "run", Goal(2.0), {("tome", 8): [*range(0, N, 10)]})
    assert (found.chosen, found.found, found.why) == (None, "beyond", None)
    assert sentence(found).startswith("Stay with r=0: no row keeps a loss of at most 2 points; tome r=8 comes nearest")


def test_with_a_speed_the_most_accurate_is_wanted(tmp_path):
    rows = {("tome", 4): [], ("tome", 8): CHOICE[:40], ("greedy", 8): CHOICE[:20]}
    found = of(tmp_path / "run", Goal(min_speedup=1.1), rows)
    assert (found.chosen.name, found.found, found.verdict) == ("greedy r=8", "best", None)
    assert sentence(found).startswith("Take greedy r=8, 1.19x")
    assert "the most accurate with at least 1.1x the speed" in sentence(found)
    assert of(tmp_path / "run2", Goal(min_speedup=3.0), rows).why == "too slow"


def test_rows_that_are_not_surely_faster_are_no_answer(tmp_path):
    write_run(tmp_path / "run", {("tome", 0): [], ("tome", 8): []}, images=N)
    measured, _ = read_runs([tmp_path / "run"])
    slow = [replace(each, row=replace(each.row, speedup_vs_r0_lo=0.9)) if each.row.r else each for each in measured]
    found = recommend(slow, Goal(2.0))
    assert (found.chosen, found.why) == (None, "not faster")
    assert "no row is surely faster than r=0" in sentence(found)


def test_pictures_of_two_folders_are_not_paired(tmp_path):
    for name, digest in (("a", "d" * 64), ("b", "e" * 64)):
        write_run(tmp_path / name, FIELD, digest=digest)
    with pytest.raises(InputError, match="was evaluated on other images"):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_from_python_it_is_what_the_command_prints(tmp_path, capsys):
    write_run(tmp_path / "run", FIELD)
    for flags, limits in (
        ((), {}),
        (("--max-drop", "3"), {"max_drop": 3}),
        (("--min-speedup", "1.1"), {"min_speedup": 1.1}),
    ):
        code = app.run(["recommend", str(tmp_path / "run"), "--json", *flags])
        printed = json.loads(capsys.readouterr().out)
        found = tomebench.recommend(tmp_path / "run", **limits)
        assert (found["recommended"] is None) is (code == 4 or "Stay with" in found["sentence"])
        assert {**printed, "runs": None} == {**json.loads(json.dumps(found)), "runs": None}
    with pytest.raises(ConfigError, match="max-drop limits a loss by labels"):
        tomebench.recommend(tmp_path / "run", max_drop=1, min_agreement=99)
    with pytest.raises(ConfigError, match="'most_drop' is no limit of a recommendation; give max_drop, "):
        tomebench.recommend(tmp_path / "run", most_drop=1)


def test_agreement_takes_the_place_of_labels(tmp_path):
    rows = {("tome", 4): CHOICE[:2], ("tome", 8): [*CHOICE[:100], *OTHERS[:100]]}
    found = of(tmp_path / "run", Goal(min_agreement=98.0), rows)
    assert found.chosen.name == "tome r=4"
    assert found.chosen.estimate.lost == 0
    assert "it loses 0.00 points of agreement" in sentence(found)


def test_a_latency_is_that_of_a_pass(tmp_path):
    rows = {("tome", 4): [], ("tome", 8): CHOICE[:40]}
    found = of(tmp_path / "run", Goal(max_latency_ms=850.0), rows)
    assert found.chosen.name == "tome r=8"  # 1 s for r = 0, 0.92 s for r = 4, 0.84 s for r = 8
    assert of(tmp_path / "b", Goal(2.0, max_latency_ms=800.0), rows).why == "too slow"


@pytest.fixture
def program(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", {("tome", 0): [], ("tome", 8): [*CHOICE[:4], *OTHERS[:4]]}, images=N)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.run(["recommend", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_the_screen_and_its_json(program):
    code, out, err = program("a", "--max-drop", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("Take tome r=8, 1.19x")
    assert "chosen  tome r=8" in out
    assert "the choice sees one half of them only" in " ".join(out.split())
    code, out, _ = program("a", "--max-drop", "2", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["recommended"]["r"] == 8
    assert found["recommended"]["estimate"]["images"] == N // 2
    assert found["verdict"] == "surely"
    assert found["goal"] == {"max_drop": 2.0}


def test_an_exit_of_4_where_nothing_can_be_said(program, tmp_path):
    write_run(tmp_path / "speed", FIELD, images=None)
    code, out, err = program("speed")
    assert (code, err) == (4, "")
    assert "Nothing can be recommended: no row can be compared with r=0 on the same images" in " ".join(out.split())
    code, out, _ = program("a", "--min-speedup", "5", "--json")
    assert code == 4
    assert json.loads(out)["recommended"] is None
    assert json.loads(out)["why_nothing"] == "too slow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no model is given; add --model"),
        (("--model", "vit_b_16"), "recommend counts what is lost, and there are no images; add --data"),
        (("a", "--model", "vit_b_16"), "--model is about a sweep, and stored runs are named; drop one of them"),
        (("a", "--r", "0,8"), "--r is about a sweep"),
        (("a", "--min-speedup", "0"), "--min-speedup 0.0: use a number above 0"),
        (("a", "--min-agreement", "101"), "--min-agreement 101.0: use a percentage from 0 to 100"),
        (("a", "--max-drop", "1", "--min-agreement", "99"), "max-drop limits a loss by labels"),
        (("nowhere",), "there is no run in nowhere"),
    ],
)
def test_bad_input_is_one_line(program, arguments, message):
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
