"""A latency staircase: every number of tokens is timed on its own stages, and steps are told from noise."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from even_clock import EvenClock

from tomebench.backbones.adapt import adapt
from tomebench.cli import app
from tomebench.errors import InputError
from tomebench.measure.staircase import numbers_of_tokens, time_staircase
from tomebench.models.create import build_model
from tomebench.reduction.methods.flags import PAPER
from tomebench.reduction.vit import ReducedViT
from tomebench.report.staircase import figure, sentence, slower_with_fewer, steps, warning
from tomebench.runs.stairs import Stair
from tomebench.sweeps import staircase
from tomebench.sweeps.staircase import read_staircase


def test_numbers_of_tokens_go_from_all_to_one_patch():
    assert numbers_of_tokens(10, 1, 1) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert numbers_of_tokens(197, 1, 50) == [2, 47, 97, 147, 197]
    assert numbers_of_tokens(5, 4, 1) == [5]


def test_each_stage_gets_its_own_tokens():
    vit = ReducedViT(adapt(build_model("test_vit").model), PAPER.method("tome"), [0] * 6)
    with torch.inference_mode():
        tokens = vit.embed(torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    seen: list[tuple[str, tuple[int, ...]]] = []
    attend, mlp = vit.attend, vit.mlp
    vit.attend = lambda layer, given: (seen.append(("attention", tuple(given.x.shape))), attend(layer, given))[1]
    vit.mlp = lambda layer, x: (seen.append(("mlp", tuple(x.shape))), mlp(layer, x))[1]
    *_, last = time_staircase(vit, 3, tokens, [2, 50, 101], 7, EvenClock(), 0, lambda: None)
    assert [each.tokens for each in last] == [2, 50, 101]
    assert all(len(each.attention) == len(each.mlp) == len(each.block) == 7 for each in last)
    assert {shape for _, shape in seen} == {(2, n, 64) for n in (2, 50, 101)}
    assert {name for name, _ in seen} == {"attention", "mlp"}


def test_removing_tokens_is_timed_on_tokens_with_sizes():
    vit = ReducedViT(adapt(build_model("test_vit").model), PAPER.method("tome"), [1] * 6)
    with torch.inference_mode():
        tokens = vit.embed(torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    seen: list[tuple[str, object]] = []
    attend, reduce = vit.attend, vit.reduce

    def reduced(layer, r, *given):
        left, plan = reduce(layer, r, *given)
        seen.append(("removal", (given[0].x.shape[1], r, left.x.shape[1], left.size is not None)))
        return left, plan

    vit.attend = lambda layer, given: (seen.append(("sized", given.size is not None)), attend(layer, given))[1]
    vit.reduce = reduced
    *_, last = time_staircase(vit, 3, tokens, [3, 101], 7, EvenClock(), 0, lambda: None, removal=True)
    assert [(each.tokens, len(each.sized), len(each.removal)) for each in last] == [(3, 7, 7), (101, 7, 7)]
    assert {what for name, what in seen if name == "removal"} == {(3, 1, 2, True), (101, 6, 95, True)}
    assert {what for name, what in seen if name == "sized"} == {True, False}
    assert numbers_of_tokens(10, 1, 4, removal=True) == [3, 6, 10]


def stairs(block, *, noise: float = 0.01, rounds: int = 20):
    """Times of a block that a function of the tokens gives, half of it attention, with noise common to a round."""
    rng = random.Random(1)
    common = [1 + noise * rng.random() for _ in range(rounds)]
    halves = {n: tuple(block(n) / 2 * each for each in common) for n in range(2, 66)}
    return [Stair(n, half, half) for n, half in halves.items()]


def test_a_step_is_found_where_it_is_and_nowhere_else():
    found = steps(stairs(lambda n: 1 + 0.01 * n + (2 if n > 32 else 0)))
    assert [(low.tokens, high.tokens) for low, high in found] == [(32, 33)]
    assert steps(stairs(lambda n: 1 + 0.01 * n)) == []
    rng = random.Random(0)
    noisy = [Stair(n, *(tuple(rng.random() for _ in range(20)) for _ in range(2))) for n in range(2, 66)]
    assert steps(noisy) == []


def test_fewer_tokens_that_take_longer_are_told():
    found = stairs(lambda n: 1 + 0.01 * n + (0.5 if n % 8 else 0))  # multiples of eight are aligned
    slower = slower_with_fewer(found)
    assert {each.tokens % 8 == 0 for each, _ in slower} == {False}
    assert all(other.tokens % 8 == 0 for _, other in slower)
    assert "numbers of tokens a block surely takes longer than at a larger one" in warning(found)
    assert warning(stairs(lambda n: n)) is None


def test_the_sentence_and_the_figure():
    found = stairs(lambda n: 1 + 0.01 * n + (2 if n > 32 else 0), noise=0.0)
    assert sentence(found) == (
        "A block takes 3.65 ms at 65 tokens, 1.32 at 32 and 1.02 at 2; the largest steps, in tokens: 33 to 32 (-60 %)"
    )
    assert figure("A block", found)[:4] == b"\x89PNG"


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(staircase, "clock_for", lambda device: EvenClock())
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["staircase", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_it_is_measured_once_stored_and_shown_again(program, tmp_path):
    flags = ("--model", "test_vit", "--device", "cpu", "--batch-size", "2", "--step", "20")
    code, out, _ = program(*flags, "--figure", "stairs.png")
    assert code == 0
    (path,) = Path("results").glob("staircase-test_vit-160-cpu-fp32-b2.json")
    assert Path("stairs.png").read_bytes()[:4] == b"\x89PNG"
    found = read_staircase(path)
    assert [each.tokens for each in found.stairs] == [2, 21, 41, 61, 81, 101]
    code, again, _ = program("--show", str(path))
    assert code == 0
    assert again.splitlines()[:8] == out.splitlines()[:8]
    assert program(*flags, "--removal", "--method", "pitome", "--out", "removal.json")[0] == 0
    both = read_staircase(Path("removal.json"))
    assert both.removal.startswith("pitome ")
    assert {len(times) for each in both.stairs for times in (each.sized, each.removal)} == {12}
    assert "removal ms" in program("--show", "removal.json")[1]
    assert found.removal == ""
    code, text, _ = program("--show", str(path), "--json")
    assert json.loads(text)["model"].startswith("test_vit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "test_vit", "--step", "0"), "--step 0: give a whole number of tokens from 1"),
        (("--model", "test_vit", "--compile"), "staircase times a block alone, eagerly"),
        (("--model", "test_vit", "--mode", "train"), "staircase times forward passes, and --mode train times none"),
        (("--show", "nowhere.json"), "cannot read nowhere.json"),
        (("--show", "a.json", "--model", "test_vit"), "--show is about a stored staircase"),
    ],
)
def test_bad_input_is_one_line(program, arguments, message):
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "tomebench staircase 1"}', "\x00", "[" * 100_000])
def test_what_is_no_staircase_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InputError, match="is no staircase; tomebench staircase writes one"):
        read_staircase(tmp_path / "file.json")
