"""A profile in this process, on a clock that only the stages move: every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tomebench.errors import ConfigError, DeviceError, Interrupted, SpecError
from tomebench.measure.floor import Rates
from tomebench.measure.stages import PARTS, PassTimes
from tomebench.reduction.vit import ReducedViT, SlicedViT
from tomebench.sweeps import profile
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Event, Phase, Progress
from tomebench.sweeps.profile import Profile, ProfileReport, run_profile

COSTS = {"attention": 4.0, "matching": 0.5, "merging": 0.25, "mlp": 2.0, "rest": 1.0, "plain": 50.0, "turn": 0.5}
"""Seconds that a mark with that label says went by."""


class LabelStopwatch:
    """Charges every mark what its label costs."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, float]] = []

    def start(self) -> None:
        self.ended = []

    def mark(self, label: str) -> None:
        self.ended.append((label, COSTS.get(label, COSTS[label.split()[-1]])))

    def laps(self) -> list[tuple[str, float]]:
        return self.ended


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = iter([Rates(1e9, 2e9), Rates(2e9, 1e9)] * 9)
    monkeypatch.setattr(profile, "stopwatch_for", lambda device: LabelStopwatch())
    monkeypatch.setattr(profile, "measure_rates", lambda device, dtype, clock: next(found))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(should_stop: Callable[[], bool] = lambda: False, **settings: object) -> tuple[list[Event], ProfileReport]:
    defaults = {"model": "test_vit", "r": "0,8", "device": "cpu", "batch_size": 2, "budget": "quick"}
    events, running = [], run_profile(load_config([], {**defaults, **settings}), should_stop)
    while True:
        try:
            events.append(next(running))
        except StopIteration as end:
            return events, end.value


def parts(profile: Profile) -> dict[str, float]:
    return {part.part: part.ms for part in profile.parts}


def test_every_r_with_its_parts_its_ceiling_and_its_floors():
    events, report = run()
    assert [event.name for event in events if isinstance(event, Phase)] == ["load", "warm-up", "timing"]
    assert [event.done for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5, 6]
    assert (report.model, report.batch_size, report.depth) == ("test_vit.r160_in1k", 2, 6)
    assert (report.macs_per_second, report.bytes_per_second) == (2e9, 2e9), "the better of two probes"
    plain, merged = report.profiles
    # Six blocks at 4 + 2 seconds and two marks of the rest; merging adds 6 · 0.75.
    assert parts(plain) == {"attention": 24e3, "matching": 0, "merging": 0, "mlp": 12e3, "rest": 2e3}
    assert parts(merged) == {**parts(plain), "matching": 3e3, "merging": 1500}
    assert (plain.r, plain.turns, plain.parts_ms, plain.plain_ms, plain.parts_percent) == (0, 6, 38e3, 50e3, 76)
    assert (plain.ceiling_ms, plain.overhead_percent, plain.ceiling_parts_percent) == (None, None, None)
    assert (merged.ceiling_ms, merged.overhead_percent, merged.ceiling_parts_percent) == (50e3, 0, 76)
    assert not merged.adds_up
    assert [part.ceiling_ms for part in merged.parts] == [24e3, 0, 0, 12e3, 2e3]
    assert merged.tokens == (93, 85, 77, 69, 61, 53)
    for found in report.profiles:
        assert sum(part.ms for part in found.parts) == found.parts_ms
        assert sum(part.floor_ms for part in found.parts) == found.floor_ms
    attention = 2 * sum(16384 * n + 128 * n * n for n in (101, 93, 85, 77, 69, 61))
    assert merged.parts[0].macs == attention
    assert merged.parts[0].floor_ms == pytest.approx(1e3 * attention / 2e9)
    assert merged.parts[0].bound_by == "MACs"


@pytest.mark.parametrize(("plain", "adds_up"), [(38.0, True), (36.3, True), (36.1, False), (40.1, False)])
def test_the_parts_may_be_five_per_cent_off(monkeypatch, plain, adds_up):
    monkeypatch.setitem(COSTS, "plain", plain)
    assert run(r="0")[1].profiles[0].adds_up is adds_up


def test_a_busy_warm_up_does_not_make_later_bursts_short(monkeypatch):
    monkeypatch.setattr(profile, "_BURST_SECONDS", 132.0)  # three turns of 38 + 50 seconds for two kinds of pass
    assert run(r="0")[1].profiles[0].turns == 3 * 6
    warm_up = profile._Run.warm_up

    def busy(self):
        warm_up(self)
        self.fastest *= 10

    monkeypatch.setattr(profile._Run, "warm_up", busy)
    assert run(r="0")[1].profiles[0].turns == 1 + 3 * 5


def test_a_clock_that_stands_still_is_refused(monkeypatch):
    for label in COSTS:
        monkeypatch.setitem(COSTS, label, 0.0)
    with pytest.raises(DeviceError, match="stands still"):
        run(r="0")


def test_the_parts_of_the_ceiling_must_add_up_too(monkeypatch):
    monkeypatch.setitem(COSTS, "reduced plain", 42.5)  # with what merging takes
    monkeypatch.setitem(COSTS, "ceiling plain", 38.0)
    found = run(r="8")[1].profiles[0]
    assert (found.parts_percent, found.ceiling_parts_percent, found.adds_up) == (100, 100, True)
    assert found.overhead_percent == pytest.approx(100 * (42.5 / 38 - 1))
    monkeypatch.setitem(COSTS, "ceiling plain", 60.0)
    assert not run(r="8")[1].profiles[0].adds_up


def test_only_the_r_asked_for_are_profiled():
    assert [found.r for found in run(r="8")[1].profiles] == [8]
    found = run(schedule="list:4,0,0,0,0,0", r=None)[1].profiles
    assert [sum(profile.r_layers) for profile in found] == [0, 4]


def test_what_prefix_only_slices_off_is_no_merging():
    found = run(prefix_only=True)[1].profiles[1]
    assert parts(found)["matching"] == 5 * 500
    assert found.parts[1].macs == 2 * sum(n * n / 4 * 32 for n in (101, 93, 85, 77, 69))


def test_attention_and_its_weighing_are_those_asked_for(monkeypatch):
    models: list[ReducedViT] = []
    build = profile.reduced_vit

    def kept(*arguments):
        models.append(build(*arguments))
        return models[-1]

    monkeypatch.setattr(profile, "reduced_vit", kept)
    report = run(r="8", attention="matmul", prop_attn=False)[1]
    assert [(model.attention, model.prop_attn) for model in models] == [("matmul", False)] * 4
    assert [isinstance(model, SlicedViT) for model in models] == [False, False, True, True]
    assert report.profiles[0].attn_kernel == "matmul"


def test_models_are_timed_in_an_order_that_the_seed_gives(monkeypatch):
    seen: list[int] = []

    def time(self, rng):
        seen.append(self.cell.cell.r)
        self.turns.append({model.name: PassTimes(dict.fromkeys(PARTS, 1.0), 5.0) for model in self.models})

    def order(seed: int) -> list[int]:
        seen.clear()
        run(r="0,4,8", seed=seed)
        return list(seen)

    monkeypatch.setattr(profile._Run, "time", time)
    one, again, other = order(0), order(0), order(1)
    assert one == again != other
    assert len(one) == 3 * 6
    assert all(sorted(one[first : first + 3]) == [0, 4, 8] for first in range(0, 18, 3))


@pytest.mark.parametrize(
    ("settings", "error", "part"),
    [
        ({"compile": True}, ConfigError, "--compile"),
        ({"cuda_graphs": True}, ConfigError, "--cuda-graphs"),
        ({"mode": "train"}, ConfigError, "--mode train"),
        ({"processes": 3}, ConfigError, "--processes"),
        ({"attention": "triton"}, DeviceError, "needs a CUDA GPU"),
        ({"device": "cuda:99"}, DeviceError, "not available"),
        ({"method": "tomme"}, SpecError, "did you mean 'tome'"),
    ],
)
def test_what_cannot_be_profiled_is_refused(settings, error, part):
    with pytest.raises(error, match=part):
        run(**settings)


@pytest.mark.parametrize(
    ("raised", "expected", "part"),
    [
        (torch.OutOfMemoryError("too much"), DeviceError, "r=8 ran out of memory at batch size 2; use a smaller"),
        (RuntimeError("no kernel"), RuntimeError, "no kernel"),
    ],
)
def test_a_pass_that_fails_says_which(monkeypatch, raised, expected, part):
    def merge(self, *arguments):
        raise raised

    monkeypatch.setattr(ReducedViT, "merge", merge)
    with pytest.raises(expected, match=part):
        run()


def test_it_stops_between_two_bursts():
    with pytest.raises(Interrupted, match="nothing is kept"):
        run(should_stop=lambda: True)
