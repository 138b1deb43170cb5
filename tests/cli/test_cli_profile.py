"""``tomebench profile``: its screen on scripted numbers, and the real thing on the packaged model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from tomebench.cli.profile import _lines, _number, sentence
from tomebench.errors import Interrupted
from tomebench.measure import floor
from tomebench.measure.floor import PartProfile
from tomebench.sweeps import profile as engine
from tomebench.sweeps.profile import Profile, ProfileReport


def part(name: str, ms: float, ceiling: float, bound: str | None = "MACs") -> PartProfile:
    inside = name != "rest"
    return PartProfile(
        name, ms, ms / 4 if inside else None, ms, ms if inside else None, 1.0, 1.0, ms / 2, 2.0 if ms else None, bound,
        ceiling,
    )  # fmt: skip


MERGED = Profile(
    r=8, schedule="constant", r_layers=(8,) * 4, tokens=(189, 181, 173, 165), attn_kernel="sdpa-flash", turns=12,
    parts=(
        part("attention", 50, 48), part("matching", 2.5, 0), part("merging", 1.5, 0, "bytes"), part("mlp", 40, 39),
        part("rest", 6, 5),
    ),
    parts_ms=100, plain_ms=98.8, parts_percent=101.2, floor_ms=50, ceiling_ms=94.7, ceiling_parts_percent=97.1,
    overhead_percent=4.3, adds_up=True,
)  # fmt: skip
PLAIN = replace(
    MERGED, r=0, ceiling_ms=None, overhead_percent=None, ceiling_parts_percent=None,
    parts=tuple(replace(p, ceiling_ms=None, ms=0 if p.part in ("matching", "merging") else p.ms) for p in MERGED.parts),
)  # fmt: skip
TESTBED = {"device_name": "a CPU", "threads": 2, "usable_cpus": 2.0, "torch": "2", "timm": "1", "python": "3",
           "driver": "unavailable"}  # fmt: skip
REPORT = ProfileReport("vit_tiny.tag", "random:0", 224, "tome", 8, "fp32", "cpu", 4, 47e9, 19e9, TESTBED,
                       (PLAIN, MERGED))  # fmt: skip


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replace the engine by one that ends with a report; returns the r it was asked for."""

    def install(report: ProfileReport = REPORT, error: Exception | None = None) -> list[str]:
        asked: list[str] = []

        def run_profile(config, should_stop):
            asked.append(config.r)
            yield engine.Phase("timing", 6.0)
            if error is not None:
                raise error
            return report

        monkeypatch.setattr(engine, "run_profile", run_profile)
        return asked

    return install


def test_the_screen_is_complete(program, scripted, monkeypatch):
    scripted()
    monkeypatch.setenv("COLUMNS", "150")
    result = program("profile", "--model", "m", "--details")
    assert result.code == 0
    assert result.err == "timing ...\n"
    lines = [line.split() for line in result.out.splitlines()]
    header = "part ms ms/block % of pass % of block floor ms x floor bound by ceiling ms"
    assert lines.count(header.split()) == 2
    assert "r=8, 165 tokens left, attention sdpa-flash" in result.out
    assert ["merging", "1.500", "0.375", "1.5", "1.5", "0.750", "2.0", "bytes", "0.000"] in lines
    assert ["rest", "6.000", "-", "6.0", "-", "3.000", "2.0", "MACs", "5.000"] in lines
    assert ["sum", "100.0", "23.50", "100.0", "100.0", "50.00", "2.0", "92.00"] in lines
    assert ["plain", "pass", "98.80", "94.70"] in lines
    shown = result.out.splitlines()
    assert shown[1:3] == [
        "r=0: attention takes 50.0 % of the pass, MLP 40.0 %; the parts add up to 101.2 % of the plain pass",
        "r=8: matching and merging take 4.0 % of the pass; it takes 4.3 % longer than the slicing ceiling; the parts "
        "add up to 101.2 % of the plain pass",
    ]
    assert shown[-4:] == [
        "model: vit_tiny.tag, 224 px, 4 blocks, weights random:0, method tome",
        "device: cpu, fp32, batch 8; ms per pass of a batch, means over the quieter half of 12 passes",
        "rates for the floors: 47 GMAC/s, 19 GB/s; a small batch may stay in a cache and beat a floor of bytes",
        "testbed: a CPU, 2 threads on 2 CPUs, torch 2, timm 1, Python 3",
    ]


def test_parts_that_do_not_run_have_no_line():
    assert [line[0] for line in _lines(PLAIN)] == ["attention", "mlp", "rest", "sum", "plain pass"]
    assert [line[0] for line in _lines(MERGED)][1:3] == ["matching", "merging"]


def test_faster_than_the_ceiling_is_said_as_such():
    faster = sentence(replace(MERGED, overhead_percent=-1.25, schedule="decreasing"))
    assert faster.startswith("r=8 decreasing: ")
    assert "takes 1.2 % less than the slicing ceiling" in faster


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, "-"), (0.0123, "0.012"), (1.5, "1.500"), (12.345, "12.35"), (123.4, "123.4"), (12345.6, "12346")],
)
def test_numbers(ms, shown):
    assert _number(ms) == shown


def test_a_sum_that_is_off_is_warned_about(program, scripted):
    off = replace(MERGED, parts_percent=93.5, adds_up=False)
    scripted(replace(REPORT, profiles=(PLAIN, off)))
    warning = "r=8: the parts add up to 93.5 % of the plain pass and 97.1 % of the slicing ceiling's, more than 5 % off"
    shown = " ".join(program("profile", "--model", "m").out.split())
    assert f"! {warning}" in shown
    assert shown.count("! ") == 1
    assert json.loads(program("profile", "--model", "m", "--json").out)["warnings"][0].startswith(warning)


def test_json_is_one_object_and_nothing_else(program, scripted):
    scripted()
    shown = json.loads(program("profile", "--model", "m", "--json").out)
    assert shown["model"] == "vit_tiny.tag"
    assert [profile["r"] for profile in shown["profiles"]] == [0, 8]
    assert shown["profiles"][1]["parts"][2]["bound_by"] == "bytes"
    assert shown["profiles"][0]["ceiling_ms"] is None
    assert shown["warnings"] == []
    assert len(shown["sentences"]) == 2


def test_r_has_a_default_of_its_own_below_flags_and_files(program, scripted, tmp_path):
    asked = scripted()
    (tmp_path / "r.yaml").write_text("r: 0..4\n")
    for arguments in ([], ["--config", "r.yaml"], ["--config", "r.yaml", "--r", "5"], ["--schedule", "list:1,2"]):
        assert program("profile", "--model", "m", *arguments).code == 0
    assert asked == ["0,8,13", "0..4", "5", "0..24"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--model vit_b_16"),
        (["--model", "vit_b_61"], "did you mean vit_b_16"),
        (["--model", "digits_vit", "--compile"], "drop it"),
        (["--model", "digits_vit", "--r", "x"], "--r 'x'"),
        (["--model", "digits_vit", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(program, arguments, says):
    result = program("profile", "--quiet", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith("tomebench: error: ")
    assert says in result.error


def test_an_interruption_is_exit_130(program, scripted):
    scripted(error=Interrupted("stopped"))
    result = program("profile", "--model", "m", "--quiet")
    assert result.code == 130
    assert result.error == "tomebench: interrupted; nothing was kept. again with: tomebench profile --model m --quiet"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real clock, with shorter bursts and smaller probes, on one thread."""
    monkeypatch.setattr(engine, "_BURST_SECONDS", 0.005)
    monkeypatch.setattr(floor, "_COPY_BYTES", 2**20)
    monkeypatch.setattr(floor, "_MATMUL", {"cpu": (64, 64, 64)})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("quick")
def test_the_packaged_model_on_this_machine(program, tmp_path):
    arguments = ("--model", "digits_vit", "--batch-size", "4", "--budget", "quick", "--device", "cpu", "--threads", "1")
    result = program("profile", *arguments, "--r", "0,8", "--json")
    assert result.code == 0
    shown = json.loads(result.out)
    assert [profile["tokens"][-1] for profile in shown["profiles"]] == [197, 133]
    for profile in shown["profiles"]:
        parts = {part["part"]: part for part in profile["parts"]}
        assert list(parts) == ["attention", "matching", "merging", "mlp", "rest"]
        assert sum(part["ms"] for part in parts.values()) == pytest.approx(profile["parts_ms"])
        assert sum(part["percent_of_pass"] for part in parts.values()) == pytest.approx(100)
        assert sum(part["percent_of_block"] or 0 for part in parts.values()) == pytest.approx(100)
        assert profile["parts_percent"] == pytest.approx(100 * profile["parts_ms"] / profile["plain_ms"])
        assert parts["attention"]["ms_per_block"] == pytest.approx(parts["attention"]["ms"] / 8)
        for name in ("matching", "merging"):
            assert (parts[name]["ms"] > 0) == (profile["r"] > 0)
        assert all(part["floor_ms"] > 0 for part in parts.values() if part["ms"] > 0)
    assert shown["macs_per_second"] > 0
    assert list(tmp_path.iterdir()) == [], "it writes no files"

    table = program("profile", *arguments, "--r", "8", "--quiet")
    assert (table.code, table.err) == (0, "")
    first_words = [line.split()[0] for line in table.out.splitlines() if line.strip()]
    assert [word for word in first_words if word in parts] == list(parts)
    assert "digits_vit, 56 px, tome, cpu, fp32, batch 4" in table.out
