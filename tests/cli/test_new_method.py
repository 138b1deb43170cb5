"""A method by one file and one line of the registry is listed, planned, swept, profiled and gated."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from fault_runs import DIGITS, fast
from reduction.contexts import make_context

from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.models.create import build_model
from tomebench.reduction import registry
from tomebench.reduction.registry import METHODS, MethodInfo, get_method

RECIPE = (Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md").read_text().partition("## A method")[2]
COST = 1000
"""Added to what the method of the recipe says of itself, which is nothing."""


@pytest.fixture(autouse=True)
def added(monkeypatch, tmp_path_factory):
    """Follow the recipe: its file and its line, and a method that lacks its cost."""
    room = tmp_path_factory.mktemp("methods")
    monkeypatch.syspath_prepend(str(room))
    file = textwrap.dedent(re.search(r" *```python\n(.*?)```", RECIPE, flags=re.DOTALL)[1])
    (room / "ends.py").write_text(file.replace("return 0.0", f"return float({COST} * n * r + block.token_dim)"))
    (room / "free.py").write_text(re.sub(r"    def cost\(.*?(?=    def cap)", "", file, flags=re.DOTALL))
    line = re.search(r'`(MethodInfo\("ends".*?\))` to', RECIPE)[1]
    lines = [eval(line.replace("{_METHODS}.", "")), MethodInfo("free", "free:Ends", "nobody knows what it costs")]
    lines.append(MethodInfo("odd", "odd:Ends", "written by odd()"))
    monkeypatch.setattr(registry, "METHODS", {**METHODS, **{line.name: line for line in lines}})
    fast(monkeypatch)
    yield file
    for name in ("ends", "free", "odd"):
        sys.modules.pop(name, None)


def test_it_is_listed(program):
    assert "the last patches are dropped" in program("list", "methods").out


def test_it_is_planned_and_charged_what_it_costs(program):
    flags = ("--model", "test_vit", "--r", "0,4", "--method", "ends")
    cell = json.loads(program("plan", *flags, "--json").out)["cells"][1]["resolved"]
    tokens = [101, *cell["tokens"]]
    assert tokens == [101, 97, 93, 89, 85, 81, 77]
    expected = sum(COST * before * 4 + 64 for before in tokens[:-1]) / 1e9
    assert cell["gmacs_matching"] == pytest.approx(expected)


def test_it_may_remove_more_than_half_of_the_patches(program):
    flags = ("--model", "test_vit", "--r", "0,60", "--method", "ends")
    cell = json.loads(program("plan", *flags, "--json").out)["cells"][1]["resolved"]
    assert cell["tokens"] == [41, 1, 1, 1, 1, 1]
    assert cell["clamped"]


def test_it_is_swept_and_gated(program):
    sweep = (*DIGITS, "--method", "ends")
    assert program(*sweep).code == 0
    rows = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    assert [(row["method"], row["r"], row["n_seen"], row["status"]) for row in rows] == [
        ("ends", 0, 6, "ok"),
        ("ends", 8, 6, "ok"),
    ]
    check = ("check", "run", "--baseline", "base.json", "--static", "--accuracy")
    assert program(*check, "--update-baseline").code == 0
    result = program(*check)
    assert (result.code, "FAIL" in result.out) == (0, False)


def test_it_is_profiled_with_its_own_work(program):
    flags = ("--model", "digits_vit", "--r", "8", "--method", "ends", "--device", "cpu", "--batch-size", "2")
    result = program("profile", *flags, "--budget", "quick", "--json")
    assert result.code == 0, result
    (found,) = json.loads(result.out)["profiles"]
    matching = next(part for part in found["parts"] if part["part"] == "matching")
    before = [197, *found["tokens"][:-1]]
    assert matching["macs"] == sum(2 * (COST * n * r + 64) for n, r in zip(before, found["r_layers"], strict=True))


def test_one_without_a_cost_is_refused(program):
    result = program("plan", "--model", "test_vit", "--method", "free")
    assert (result.code, result.out) == (2, "")
    assert "method free declares no cost, without which it cannot be used" in result.error


@pytest.fixture
def odd(added, tmp_path, monkeypatch):
    """Write the method of the recipe with something else in it, as the method odd."""

    def write(*changes: tuple[str, str]) -> None:
        file = added
        for old, new in changes:
            assert old in file
            file = file.replace(old, new)
        (tmp_path / "odd.py").write_text(file)

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


SIDE = 'side: Literal["last", "first"] = "last"'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SIDE, "side: float = 0.5", "option side is neither a Literal of words nor a whole number with Bounds"),
        (SIDE, 'side: Literal["last", "first"]', "option side needs a default, the first of its values"),
        (SIDE, SIDE.replace('= "last"', '= "first"'), "option side needs a default, the first of its values"),
        (SIDE, SIDE.replace("side", "Side", 1), "option Side cannot be called so"),
        (SIDE, SIDE.replace("side", "prop_attn", 1), "option prop_attn cannot be called so"),
        (SIDE, SIDE.replace("side", "metric", 1), "option metric has other values or another default than --metric"),
        (SIDE, "side: Annotated[int, 3] = 1", "name 'Annotated' is not defined"),
        (SIDE, 'metric: Literal["q", "k"] = "q"', "option metric has other values or another default than --metric"),
        (SIDE, 'side: Literal["a b", "c"] = "a b"', "option side is neither a Literal of words nor"),
        (SIDE, 'side: Literal[True, "true"] = True', "option side is neither a Literal of words nor"),
        (SIDE, "side: Nowhere = 1", "its options cannot be read: name 'Nowhere' is not defined"),
        (SIDE, "source: Literal[1, 2] = 1", "option source cannot be called so"),
        ("@dataclass(frozen=True)\n", "", "odd:Ends is no frozen dataclass on Method"),
        ("@dataclass(frozen=True)", "@dataclass", "odd:Ends is no frozen dataclass on Method"),
        ("class Ends", "class Other", "cannot be imported: module 'odd' has no attribute 'Ends'"),
        ("import dataclass", "import data_class", "cannot be imported: cannot import name 'data_class'"),
    ],
)
def test_one_that_is_declared_wrongly_is_refused_in_a_line(program, odd, old, new, says):
    odd((old, new))
    result = program("plan", "--model", "test_vit", "--method", "odd")
    assert (result.code, result.out) == (2, "")
    assert "method odd" in result.error
    assert says in result.error


def test_one_that_leaves_other_tokens_than_it_says_is_not_measured(odd):
    odd(("first : first + n - ctx.r - ctx.prefix", "first : first + n - ctx.prefix"))
    model = apply(build_model("test_vit").model, 4, method="odd")
    with pytest.raises(SpecError, match="method Ends was to leave 97 tokens of 101 in block 0, and leaves 101"):
        model(torch.randn(1, 3, 160, 160))


def test_no_cap_takes_the_last_token_or_one_of_the_prefix(program, odd):
    odd(("return n - prefix\n", "return n\n"))
    flags = ("--model", "test_vit", "--r", "0,1000", "--method", "odd")
    cell = json.loads(program("plan", *flags, "--json").out)["cells"][1]["resolved"]
    assert cell["tokens"] == [1, 1, 1, 1, 1, 1]


def test_truth_values_and_numbers_are_options(program, odd):
    odd(
        (SIDE, "last: Literal[True, False] = True\n    few: Literal[2, 5] = 2"),
        ('self.side == "first"', "not self.last"),
    )
    listed = json.loads(program("list", "methods", "odd", "--json").out)["methods"]
    assert [(each["default"], each["values"]) for each in listed] == [("true", "true, false"), ("2", "2, 5")]
    flags = ("plan", "--model", "test_vit", "--r", "0,8", "--method", "odd")
    cells = json.loads(program(*flags, "--option", "last=true,false", "--json").out)["cells"]
    assert [dict(each["cell"]["options"]) for each in cells[1:]] == [
        {"prop_attn": True},
        {"last": False, "prop_attn": True},
    ]
    assert "8 last=false" in program(*flags, "--option", "last=true,false").out
    with pytest.raises(SpecError, match="few is 3; use 2, 5"):
        get_method("odd", {"few": 3})


def test_its_options_are_those_of_its_class():
    assert get_method("ends", {"side": "first"}).choose(make_context(9, 1, 3)).kept.tolist() == [[0, 4, 5, 6, 7, 8]] * 2
    with pytest.raises(SpecError, match="method ends has no colour; leave colour out"):
        get_method("ends", {"colour": "red"})
    with pytest.raises(SpecError, match="side is 'top'; use last, first"):
        get_method("ends", {"side": "top"})
    model = build_model("test_vit").model
    assert apply(model, 3, method="ends", side="first").method == get_method("ends", {"side": "first"})
    for options, says in (
        ({"side": "top"}, "side is 'top'"),
        ({"colour": "red"}, "there is no option 'colour'; use .*side"),
    ):
        with pytest.raises(SpecError, match=says):
            apply(model, 3, method="ends", **options)


def test_values_of_an_option_are_cells(program):
    sweep = (*DIGITS, "--method", "ends", "--budget", "none")
    assert program(*sweep, "--option", "side=last,first").code == 0
    assert table("run") == [("prop_attn=true", 0), ("prop_attn=true", 8), ("prop_attn=true side=first", 8)]
    summary = Path("run/summary.md").read_text()
    assert "--option side=last,first" in summary
    listed = json.loads(program("list", "methods", "ends", "--json").out)["methods"]
    assert listed == [{"--option": "side", "default": "last", "values": "last, first"}]
    assert "source: nobody" in program("list", "methods", "ends").out


def table(folder):
    rows = [json.loads(line) for line in (Path(folder) / "rows.jsonl").read_text().splitlines()]
    return [(row["options"], row["r"]) for row in rows]


def test_another_value_of_an_option_goes_on_in_the_folder(program):
    sweep = (*DIGITS, "--method", "ends", "--budget", "none")
    assert program(*sweep).code == 0
    assert program(*sweep, "--option", "side=first").code == 0
    assert table("run") == [("prop_attn=true", 0), ("prop_attn=true", 8), ("prop_attn=true side=first", 8)]
    assert program(*sweep, "--option", "side=last,first").code == 0
    assert len(table("run")) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["side=top"], "side is 'top'; use last, first"),
        (["colour=red"], "--option colour: method ends has no such option; it has side"),
        (["side"], "write NAME=VALUE, or NAME=A,B for several cells (see: tomebench list methods NAME)"),
        (["side=first", "side=last"], "side is there twice; write side=A,B for several cells"),
        (["metric=q"], "method ends has no metric; leave metric out"),
    ],
)
def test_a_wrong_option_is_one_line(program, options, says):
    flags = [word for option in options for word in ("--option", option)]
    result = program("plan", "--model", "test_vit", "--method", "ends", *flags)
    assert (result.code, result.out) == (2, "")
    assert says in result.error


def test_a_value_is_one_cell_however_it_is_written(program):
    flags = ("--method", "kmeans", "--budget", "none")
    assert program(*DIGITS, *flags, "--option", "iterations=2,02").code == 0
    assert program(*DIGITS, *flags, "--option", "iterations=002,3").code == 0
    assert [r for _, r in table("run")] == [0, 8, 8]
    plan = ("plan", "--model", "test_vit", "--r", "0,8", "--method", "kmeans", "--json")
    assert json.loads(program(*plan, "--option", "iterations=02").out)["config"]["option"] == "iterations=2"
    Path("c.yaml").write_text("option: {iterations: [2, 3]}\n")
    assert json.loads(program(*plan, "--config", "c.yaml").out)["config"]["option"] == "iterations=2,3"
    Path("d.yaml").write_text("option: {metric: q}\n")
    files = ("--config", "c.yaml", "--config", "d.yaml", "--option", "heads=concat")
    config = json.loads(program(*plan, *files).out)["config"]
    assert [config[name] for name in ("option", "metric", "heads")] == ["iterations=2,3", "q", "concat"]
    for odd in ("'2 iterations=3'", "{a: 1}"):
        Path("c.yaml").write_text(f"option: {{iterations: {odd}}}\n")
        assert "config 'c.yaml': option" in program(*plan, "--config", "c.yaml").error
    assert json.loads(program(*plan, "--option", " ").out)["cells"][1]["cell"]["options"] == [["prop_attn", True]]


def test_a_wrong_value_of_a_flag_is_one_line_also_as_an_option(program):
    result = program("plan", "--model", "test_vit", "--option", "metric=Q")
    assert (result.code, result.out) == (2, "")
    assert "--option metric 'Q': use k, q, v, x, x_pre, k_rot" in result.error


def test_a_flag_wins_over_yaml_also_as_an_option(program):
    Path("c.yaml").write_text("metric: q\n")
    flags = ("plan", "--model", "test_vit", "--r", "0,8", "--json", "--config", "c.yaml")
    assert json.loads(program(*flags).out)["cells"][1]["cell"]["options"] == [["metric", "q"], ["prop_attn", True]]
    cells = json.loads(program(*flags, "--option", "metric=v").out)["cells"]
    assert cells[1]["cell"]["options"] == [["metric", "v"], ["prop_attn", True]]


def test_an_ablation_is_one_of_tome(program):
    result = program("plan", "--model", "test_vit", "--ablate", "--method", "greedy")
    assert (result.code, result.out) == (2, "")
    assert "ablate changes the options of ToMe, and method greedy has no partition; drop --method" in result.error


def test_options_of_the_methods_that_are_there(program):
    flags = ("plan", "--model", "test_vit", "--r", "0,8", "--json")
    cells = json.loads(program(*flags, "--method", "kmeans", "--option", "iterations=2,5").out)["cells"]
    assert [dict(cell["cell"]["options"]) for cell in cells] == [
        {"prop_attn": True},
        {"prop_attn": True, "iterations": 2},
        {"prop_attn": True},
    ]
    by_flag = json.loads(program(*flags, "--metric", "q").out)
    by_option = json.loads(program(*flags, "--option", "metric=q").out)
    assert by_option["cells"] == by_flag["cells"]
    assert (
        "option metric is --metric, which is given, too"
        in program(*flags, "--option", "metric=q", "--metric", "k").error
    )
