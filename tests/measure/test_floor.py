"""Floors from numbers worked out by hand, and probes on a clock that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tomebench.backbones.timm_vit import TimmViT
from tomebench.measure import floor
from tomebench.measure.clock import CpuClock
from tomebench.measure.floor import PassShape, Rates, Work, measure_rates, part_profiles, pass_work
from tomebench.measure.stages import PARTS, PassTimes
from tomebench.models.create import build_model
from tomebench.reduction.macs import BlockMacs, MacTerms
from tomebench.reduction.registry import get_method

CPU = torch.device("cpu")
BLOCK = BlockMacs(attention_per_token=1000, attention_per_pair=20, mlp_per_token=3000, metric_dim=5, width=20)
TERMS = MacTerms(embed=700, blocks=(BLOCK, BLOCK), pool_per_token=2, head=40)
SHAPE = PassShape(
    batch=2,
    image=50,
    tokens_in=12,
    tokens=(8, 8),
    merged=(4, 0),
    pooled=1,
    width=10,
    itemsize=4,
    params=9000,
    method=get_method("tome"),
)


def test_the_work_of_every_part_by_hand():
    work = pass_work(TERMS, SHAPE)
    assert work == {
        # Two images, 12 then 8 tokens. Keys are 10 values a token and leave only the block that merges.
        "attention": Work(2 * (1000 * 20 + 20 * (144 + 64)), 4 * (2 * 2 * 20 * 10 + 2 * 1000) + 4 * 2 * 12 * 10),
        # 12² / 4 · 5 MACs; the keys in, and out 8 + 2 · 4 indices of 8 bytes for each image.
        "matching": Work(2 * 180, 4 * 2 * 12 * 10 + 8 * 2 * 16),
        "merging": Work(0, 4 * 2 * (12 + 8) * 10 + 8 * 2 * 16),
        "mlp": Work(2 * 3000 * 16, 4 * (2 * 2 * 16 * 10 + 2 * 3000)),
        # Pooling looks at 8 tokens, the head reads one; 9000 - 2 · 4000 weights are left.
        "rest": Work(2 * (700 + 40 + 16), 4 * (2 * 50 + 2 * 12 * 10 + 2 * 10 + 1000)),
    }


def test_every_method_is_charged_what_it_costs():
    """A block of 12 tokens loses 4: heads of 5 values, 10 side by side."""
    costs = {"greedy": 12 * 12 * 5, "kmeans": 12 * 12 * 10 + 11 * 12 * 8 * 5, "attention-prune": 12 * 10}
    for name, macs in costs.items():
        work = pass_work(TERMS, PassShape(**{**vars(SHAPE), "method": get_method(name)}))
        assert work["matching"].macs == 2 * macs
    at_random = pass_work(TERMS, PassShape(**{**vars(SHAPE), "method": get_method("random-prune")}))
    assert at_random["matching"] == Work(0, 8 * 2 * 16), "it looks at no key"


def test_nothing_is_matched_where_nothing_is_merged():
    work = pass_work(TERMS, PassShape(**{**vars(SHAPE), "tokens": (12, 12), "merged": (0, 0)}))
    assert work["matching"] == work["merging"] == Work(0, 0)


def test_macs_are_those_of_the_model_and_weights_count_once():
    backbone = TimmViT(build_model("test_vit").model)
    terms, tokens = backbone.macs(), (93, 85, 77, 69, 61, 53)
    params = sum(p.numel() for p in backbone.model.parameters())
    shape = PassShape(3, 3 * 160 * 160, 101, tokens, (8,) * 6, 1, 64, 4, params, get_method("tome"))
    work = pass_work(terms, shape)
    everything = sum(work[part].macs for part in PARTS)
    matching = terms.gmacs_matching(101, tokens, get_method("tome"))
    assert everything == pytest.approx(3e9 * (terms.gmacs(101, tokens) + matching))
    without = pass_work(terms, PassShape(**{**vars(shape), "params": 0}))
    assert sum(work[part].bytes - without[part].bytes for part in PARTS) == 4 * params


def test_a_floor_is_the_larger_of_its_two_times():
    rates = Rates(macs=1000, bytes=100)
    assert Work(5000, 100).floor_ms(rates) == 5000
    assert Work(5000, 100).bound_by(rates) == "MACs"
    assert Work(5000, 700).floor_ms(rates) == 7000
    assert Work(5000, 700).bound_by(rates) == "bytes"
    assert Rates(1, 5).or_better(Rates(2, 4)) == Rates(2, 5)


def test_parts_next_to_their_floors():
    times = PassTimes({"attention": 40, "matching": 0, "merging": 20, "mlp": 20, "rest": 20}, plain=99)
    ceiling = PassTimes({**times.parts, "merging": 0, "mlp": 10}, plain=70)
    work = {part: Work(0, 0) for part in PARTS}
    work |= {"attention": Work(10, 1), "merging": Work(0, 50), "rest": Work(1, 0)}
    attention, matching, merging, mlp, rest = part_profiles(times, ceiling, work, Rates(1000, 1e4), depth=4)
    assert [part.part for part in (attention, matching, merging, mlp, rest)] == list(PARTS)
    assert (attention.ms_per_block, attention.percent_of_pass, attention.percent_of_block) == (10, 40, 50)
    assert (attention.floor_ms, attention.over_floor, attention.bound_by) == (10, 4, "MACs")
    assert (merging.floor_ms, merging.over_floor, merging.bound_by) == (5, 4, "bytes")
    assert (matching.ms, matching.floor_ms, matching.over_floor, matching.bound_by) == (0, 0, None, None)
    assert (mlp.ceiling_ms, merging.ceiling_ms) == (10, 0)
    assert (rest.ms_per_block, rest.percent_of_block, rest.percent_of_pass) == (None, None, 20)
    assert part_profiles(times, None, work, Rates(1, 1), 4)[0].ceiling_ms is None


class ScriptedClock:
    """Runs every burst and says the times it was given, in order."""

    min_burst = 1.0
    backlog = None

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.steps = list(seconds), []

    def burst(self, step: Callable[[], object], steps: int) -> float:
        step()
        self.steps.append(steps)
        return self.seconds.pop(0)

    def now(self) -> float:
        return 0.0


def test_rates_are_those_of_the_fastest_burst_after_the_first(monkeypatch):
    monkeypatch.setattr(floor, "_MATMUL", {"cpu": (10, 20, 30)})
    monkeypatch.setattr(floor, "_COPY_BYTES", 800)
    monkeypatch.setattr(floor, "_STEPS", {"cpu": 2})
    clock = ScriptedClock(0.1, 8, 7, 6, 9, 10, 0.1, 4, 5, 6, 7, 8)
    # Two products of 6000 MACs in 6 s; two copies of 800 bytes, read and written, in 4 s.
    assert measure_rates(CPU, torch.float32, clock) == Rates(macs=2000, bytes=800)
    assert clock.seconds == []
    assert set(clock.steps) == {2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probes_give_plausible_rates(monkeypatch, dtype):
    monkeypatch.setattr(floor, "_MATMUL", {"cpu": (64, 64, 64)})
    monkeypatch.setattr(floor, "_COPY_BYTES", 2**20)
    rates = measure_rates(CPU, dtype, CpuClock())
    assert 1e5 < rates.macs < 1e14
    assert 1e5 < rates.bytes < 1e14


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_faster_than_any_host():
    from tomebench.measure.clock import CudaClock

    device = torch.device("cuda")
    rates = measure_rates(device, torch.bfloat16, CudaClock(device))
    assert 5e12 < rates.macs < 1e16
    assert 1e11 < rates.bytes < 1e14
