"""The configuration: precedence, YAML traps, one-line errors, what identifies a run."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tomebench.errors import ConfigError, InputError
from tomebench.models.create import build_model
from tomebench.schema import MAX_DROP
from tomebench.sweeps.cells import resolve_sweep
from tomebench.sweeps.config import SweepConfig, command_line, run_directory
from tomebench.sweeps.config_files import load_config, packaged_config, packaged_configs


def write(folder: Path, text: str | bytes, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(call, kind=InputError) -> str:
    """The message of the error that the call must raise: one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message
    return message


def test_the_helper_notices_a_call_that_is_not_refused():
    with pytest.raises(pytest.fail.Exception):
        refusal(lambda: None)


def test_flags_beat_later_yaml_beats_earlier_yaml_beats_defaults(tmp_path):
    first = write(tmp_path, "model: a\nbatch-size: 4\nseed: 1\n", "1.yaml")
    second = write(tmp_path, "batch_size: 8\nseed: 2\n", "2.yaml")
    config = load_config([first, second], {"seed": 3, "dtype": None})
    assert (config.model, config.batch_size, config.seed, config.dtype) == ("a", 8, 3, "fp32")
    assert load_config([second, first], {}).batch_size == 4


def test_the_defaults():
    config = load_config([], {"model": "m"})
    assert (config.r, config.schedule, config.method, config.prop_attn) == ("0..24", "constant", "tome", True)
    assert (config.device, config.dtype, config.batch_size, config.budget) == ("auto", "fp32", "auto", "quick")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("r: 8", (8,)),
        ("r: [0, 8]", (0, 8)),
        ("r: 0..24:8", (0, 8, 16, 24)),
        ("r: 0,8,16", (0, 8, 16)),
        ("r: '4'", (4,)),
    ],
)
def test_every_natural_way_to_write_r(tmp_path, text, values):
    assert load_config([write(tmp_path, text)], {"model": "m"}).r_values == values


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("batch-size: 64", "batch_size", 64),
        ("batch-size: auto", "batch_size", "auto"),
        ("prop-attn: no", "prop_attn", False),
        ("device: cuda:1", "device", "cuda:1"),
        ("schedule: inflect:-0.5", "schedule", "inflect:-0.5"),
        ("schedule: list:8,8,4", "schedule", "list:8,8,4"),
        ("out: runs/[r=8]/x", "out", Path("runs/[r=8]/x")),
        ("limit:\ndata: digits", "limit", None),
        ("seed: 010", "seed", 10),  # eight in YAML 1.1
        ("seed: 0x1f", "seed", 31),
        ("seed: 0o17", "seed", 15),
        ("max-drop: 5e-1", "max_drop", 0.5),
    ],
)
def test_yaml_values(tmp_path, text, field, value):
    assert getattr(load_config([write(tmp_path, text)], {"model": "m"}), field) == value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("limt: 3", "did you mean 'limit'?"),
        ("batchsize: 3", "did you mean 'batch-size'?"),
        ("zzz: 3", "the settings are model, checkpoint"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- model", "is not a mapping"),
        ("model", "is not a mapping"),
        ("seed: 1\nseed: 2", "line 2: 'seed' is given twice"),
        ("batch-size: 1\nbatch_size: 2", "'batch_size' is given twice"),
        ("a:\n\tb: 1", "line 2: YAML does not allow tabs"),
        ("\tseed: 1", "YAML does not allow tabs"),
        ("seed: [1", "line 1"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("on: 1", "the key True is not text"),
        ("name: no", "name False: must be text; put it in quotes"),
        ("name: 2024-01-01", "must be text"),
        ("name: 2024-99-99", "cannot be read as YAML"),
        ("name: a/b", "use --out"),
        ("name: ..", "use --out"),
        ("name: ''", "must not be empty"),
        ('data: "a\\0b"', "must not contain a NUL"),
        ("seed: 1e-3", "seed 0.001: must be a whole number"),
        ("seed: 1:30", "seed '1:30': must be a whole number"),  # ninety in YAML 1.1
        ("seed: 1_000", "seed '1_000': must be a whole number"),
        ("seed: 0x" + "f" * 5000, "must be a whole number"),
        ("seed: " + "9" * 5000, "must be a whole number"),
        ("seed: " + "9" * 20, "seed '99999999999999999999': must be a whole number"),
        ("name: &a [x]\ndata: *a", "line 2: an alias (*) stands for another value; write it out"),
        ("seed: 1.5", "seed 1.5: must be a whole number"),
        ("seed: -1", "seed -1: must be 0 or more"),
        ("seed: yes", "must be a whole number"),
        ("r: 1.5", "r 1.5: must be text"),
        ("r: -1", "cannot be negative"),
        ("r: []", "r []: must be text"),
        ("r: 5..1", "runs backwards"),
        ("r:", "r nothing: must be text"),
        ("dtype: fp8", "dtype 'fp8': use fp32, tf32, bf16 or fp16"),
        ("device: gpu", "use auto, cpu, cuda or cuda:N"),
        ("batch-size: 0", "from 1 to 65536"),
        ("batch-size: many", "use auto, or a whole number"),
        ("schedule: linear", "use constant, decreasing"),
        ("prop-attn: 1", "must be true or false"),
        ("limit: 3", "add --data"),
        ("limit: 0\ndata: digits", "must be 1 or more"),
        ("threads: 100000", "must be at most 1024"),
        ("model: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("seed: " + "[" * 1500, "c.yaml"),
        (b"name: \xff", "not UTF-8"),
        (b"name: \x01", "cannot be read as YAML"),
        (b"#" * 70000, "larger than 64 KiB"),
        ("{[1]: 2}", "line 1"),
    ],
)
def test_what_is_wrong_with_a_file_takes_one_line(tmp_path, text, part):
    path = write(tmp_path, text)
    assert part in refusal(lambda: load_config([path], {"model": "m"}))


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path):
    assert "No such file" in refusal(lambda: load_config([tmp_path / "no.yaml"], {}), ConfigError)
    assert "cannot be read" in refusal(lambda: load_config([tmp_path], {}), ConfigError)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(lambda: load_config([tmp_path / "pipe"], {}), ConfigError)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({}, "--model vit_b_16"),
        ({"model": ""}, "--model '': must not be empty"),
        ({"model": "m", "dtype": "fp8"}, "--dtype 'fp8': use"),
        ({"model": "m", "batch_size": "-1"}, "--batch-size '-1': use auto"),
        ({"model": "m", "limit": 3}, "add --data"),
        ({"model": "m", "out": Path("x"), "name": "a\\b"}, "--name"),
    ],
)
def test_errors_in_flags_name_the_flag(flags, part):
    assert part in refusal(lambda: load_config([], flags))


def test_a_batch_size_from_the_command_line_is_a_number():
    assert load_config([], {"model": "m", "batch_size": "16"}).batch_size == 16


def test_python_values_for_callers_of_the_library():
    config = load_config([], {"model": "m", "r": range(3), "data": Path("d"), "out": "o", "batch_size": 2})
    assert (config.r_values, config.data, config.out, config.batch_size) == ((0, 1, 2), "d", Path("o"), 2)


def test_a_run_is_identified_by_everything_that_can_change_a_result():
    config = load_config([], {"model": "m", "r": "2,1", "out": Path("a"), "workers": 3})
    younger = {"attention", "prefix_only", "compile", "cuda_graphs", "mode", "ceiling", "end_to_end", "processes"}
    younger |= {"cells", "real", "allow_missing", "ablate", "preprocessing", "use_ema"}
    younger |= {"num_classes", "class_names", "class_head", "labels", "until", "selector"}
    younger |= {"reference", "option", "metric", "heads", "distance", "combine", "partition"}
    younger |= {"matching", "predictors", "rope"}
    free = {"out", "name", "workers", "offline", "cache", "verify", "share", "against"}
    free |= {"max_drop", "min_agreement", "min_speedup", "max_latency_ms"}
    assert set(config.stored()) == set(SweepConfig.model_fields) - free - younger
    changed = {"attention": "matmul", "prefix_only": True, "compile": True, "cuda_graphs": True, "ceiling": True}
    changed |= {"end_to_end": True, "data": "digits", "cells": "1/2", "preprocessing": "tome"}
    assert set(load_config([], {"model": "m", **changed}).stored()) >= set(changed)
    assert load_config([], {"model": "m", "selector": True}).stored()["selector"] is True
    assert load_config([], {"model": "m", "mode": "train"}).stored()["mode"] == "train"
    assert config.stored() == load_config([], {"model": "m", "r": "0..2", "name": "b", "offline": True}).stored()
    assert config.stored() != load_config([], {"model": "m", "r": "0..3"}).stored()
    assert config.stored() == load_config([], {"model": "m", "r": "0..2", "max_drop": 0.5}).stored()


def test_max_drop_is_points_of_top_1(tmp_path):
    assert load_config([], {"model": "m"}).max_drop == MAX_DROP
    (tmp_path / "c.yaml").write_text("model: m\nmax-drop: 2\n")
    assert load_config([tmp_path / "c.yaml"], {}).max_drop == 2
    assert load_config([tmp_path / "c.yaml"], {"max_drop": 0.5}).max_drop == 0.5
    for value in (-0.1, 100.5, float("nan"), float("inf")):
        message = refusal(lambda value=value: load_config([], {"model": "m", "max_drop": value}))
        assert message == f"--max-drop {value}: use a number of points of top-1, from 0 to 100"
    (tmp_path / "c.yaml").write_text("model: m\nmax-drop: 3images\n")
    assert "max-drop '3images': must be a number" in refusal(lambda: load_config([tmp_path / "c.yaml"], {}))


@pytest.mark.parametrize("flags", [{}, {"prop_attn": True}, {"prop_attn": False}])
@pytest.mark.parametrize(("model", "usual"), [("mae_vit_b_16", False), ("vit_b_16", True)])
def test_presets_carry_proportional_attention_and_commands_say_what_is_unusual(model, usual, flags):
    config = load_config([], {"model": model, **flags})
    assert config.prop_attn == flags.get("prop_attn", usual)
    words = command_line(config.stored()).split()
    said = {word.removeprefix("--"): not word.startswith("--no-") for word in words if word.endswith("prop-attn")}
    assert said == ({} if config.prop_attn == usual else {("prop-attn" if not usual else "no-prop-attn"): not usual})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mode": "train", "data": "digits"}, "mode train measures the speed of a training step, not top-1"),
        ({"mode": "train", "cuda_graphs": True}, "CUDA graphs replay forward passes only"),
        ({"mode": "test"}, "--mode 'test': use infer or train"),
        ({"attention": "flash"}, "--attention 'flash': use auto, sdpa, padded"),
    ],
)
def test_settings_that_do_not_go_together(flags, message):
    with pytest.raises(ConfigError, match=message):
        load_config([], {"model": "m", **flags})


def test_stored_settings_are_plain_yaml(tmp_path):
    flags = {"model": "m", "checkpoint": Path("w.pth"), "data": "d", "limit": 5, "prop_attn": False, "r": "8"}
    config = load_config([], flags)
    again = load_config([write(tmp_path, yaml.safe_dump(config.stored()))], {})
    assert again.stored() == config.stored()


def test_the_command_line_of_a_configuration():
    config = load_config([], {"model": "m", "data": "my data", "r": "0,8", "prop_attn": False, "batch_size": "2"})
    assert (
        command_line(config.stored())
        == "tomebench sweep --model m --r 0,8 --no-prop-attn --data 'my data' --batch-size 2"
    )
    assert command_line(load_config([], {"model": "m"}).stored()) == "tomebench sweep --model m"


@pytest.mark.parametrize(
    ("flags", "directory"),
    [
        ({"model": "vit_b_16"}, "results/vit_b_16-tome"),
        ({"model": "../../etc/x y"}, "results/etc-x-y-tome"),
        ({"model": "hf-hub:a/b.c"}, "results/hf-hub-a-b.c-tome"),
        ({"model": "m", "name": "n"}, "results/n"),
        ({"model": "m", "name": "n", "out": Path("o")}, "o"),
    ],
)
def test_the_run_folder(flags, directory):
    assert run_directory(load_config([], flags)) == Path(directory)


@given(st.text(min_size=1, max_size=300))
def test_a_run_folder_is_always_one_folder_under_results(model):
    try:
        directory = run_directory(load_config([], {"model": model}))
    except ConfigError:
        return  # blank, or with a NUL
    assert directory.parent == Path("results")
    assert directory.name not in ("", ".", "..")
    assert len(directory.name) <= 80


def test_every_packaged_configuration_loads_and_says_what_it_is():
    configs = packaged_configs()
    assert {"demo", "vit_b_16_cpu", "vit_b_16_cuda", "paper/augreg/s_224", "paper/digits/vit"} <= set(configs)
    for name, path in configs.items():
        assert load_config([path], {}).name == name.replace("/", "-")
        comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
        for word in ("Purpose:", "Command:", "Cost:", "Expect:"):
            assert any(word in line for line in comments), f"{name} does not open with its {word}"
        assert any(name.removeprefix("paper/") in line for line in comments if "Command:" in line)


def test_every_packaged_configuration_can_be_planned():
    built = functools.cache(functools.partial(build_model, meta=True))  # many are of one model
    for name, path in packaged_configs().items():
        config = load_config([path], {})
        planned = resolve_sweep(config, built=built(config.model_spec))
        assert planned[0].cell.is_baseline, name


def test_the_demo_configuration():
    config = load_config([packaged_config("demo")], {})
    assert (config.model, config.data, config.device, config.budget) == ("digits_vit", "digits", "cpu", "quick")
    assert (config.methods, config.r_values) == (("tome", "pitome"), (0, 12, 16, 20, 24))
    assert config.schedule == "decreasing"


def test_a_packaged_configuration_can_be_given_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config([Path("demo")], {}).model == "digits_vit"
    write(tmp_path, "model: mine", "demo")
    assert load_config([Path("demo")], {}).model == "mine", "a file of that name goes first"
    assert "demo" in refusal(lambda: packaged_config("dmeo"))


def test_options_with_commas_are_cells_of_their_own():
    config = load_config([], {"model": "m", "metric": "k, q", "combine": "weighted,keep,weighted"})
    assert (config.metric, config.combine) == ("k,q", "weighted,keep")
    assert [choice.options.changed() for choice in config.cell_choices] == [
        (),
        (("combine", "keep"),),
        (("metric", "q"),),
        (("combine", "keep"), ("metric", "q")),
    ]
    assert {(choice.method, choice.prop_attn) for choice in config.cell_choices} == {("tome", True)}


def test_an_ablation_changes_one_option_at_a_time():
    config = load_config([], {"model": "m", "ablate": True, "prop_attn": False})
    (first, *others, last) = config.cell_choices
    assert (first.options.changed(), first.prop_attn) == ((), False)
    assert (last.options.changed(), last.prop_attn) == ((), True)
    assert all(len(each.options.changed()) == 1 and not each.prop_attn for each in others)
    assert len({each.options for each in others}) == len(others) == 4 + 1 + 3 + 3 + 2 + 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metric": "k,z"}, "--metric 'k,z': use k, q, v, x, x_pre, k_rot, or several of them with commas"),
        ({"matching": ""}, "--matching '': use bipartite, greedy, kmeans-2, kmeans-5, random-prune, attention-prune"),
        ({"matching": "bipartite,greedy", "partition": "random"}, "matching greedy has no partition; leave partition"),
        ({"metric": "x", "heads": "concat"}, "metric x has no heads; leave heads out"),
        ({"ablate": True, "metric": "q"}, "ablate changes each option in turn, from the paper's default; leave the"),
    ],
)
def test_options_that_mean_nothing(flags, message):
    assert message in refusal(lambda: load_config([], {"model": "m", **flags}))


@pytest.mark.parametrize(
    ("given", "seeds"), [("seeds=3", (0, 1, 2)), ("seeds=1", (0,)), ("random-prune.seeds=2", (0, 1))]
)
def test_a_number_of_seeds_is_a_cell_of_each(given: str, seeds: tuple[int, ...]) -> None:
    config = SweepConfig(model="test_vit", method="tome,random-prune", option=given)
    cells = [dict(each.options.more).get("seed", 0) for each in config.cell_choices if each.method == "random-prune"]
    assert tuple(cells) == seeds
    assert (
        SweepConfig(**{**config.model_dump(), "option": "seed=" + ",".join(map(str, seeds))}).cell_choices[-1]
        == (config.cell_choices[-1])
    )


@pytest.mark.parametrize("given", ["seeds=0", "seeds=101", "seeds=1,2", "seeds=x", "seeds=3 seed=1"])
def test_a_number_of_seeds_that_is_none_is_refused(given: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"seeds"):
        SweepConfig(model="test_vit", method="random-prune", option=given)
