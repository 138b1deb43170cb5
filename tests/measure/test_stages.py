"""Marked stages: exact attribution on a clock whose time only a stage moves, and logits that do not change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from fake_clock import FakeClock

from tomebench.backbones.timm_vit import TimmViT
from tomebench.measure import clock as clock_module
from tomebench.measure.clock import CpuClock, CpuStopwatch, CudaStopwatch, Stopwatch, clock_for, stopwatch_for
from tomebench.measure.stages import PARTS, Part, PassTimes, TimedModel, marked, marker, time_burst, typical_ms
from tomebench.models.create import build_model
from tomebench.reduction.registry import get_method
from tomebench.reduction.vit import ReducedViT, SlicedViT

LAYERS = (8, 8, 0, 8, 8, 8)  # of test_vit, which has six blocks and 101 tokens
COSTS = {"embed": 0.5, "attend": 4.0, "plan": 0.25, "merge": 0.125, "mlp": 2.0, "head": 1.0}
MERGED: Mapping[Part, float] = {"attention": 24.0, "matching": 1.25, "merging": 0.625, "mlp": 12.0, "rest": 1.5}
SLICED: Mapping[Part, float] = {**MERGED, "matching": 0.0, "merging": 0.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Passes as small as these take longer with two threads where something else is running."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone() -> TimmViT:
    return TimmViT(build_model("test_vit").model)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


class FakeStopwatch:
    """Reads a fake clock; a mark may itself take time."""

    def __init__(self, clock: FakeClock, mark_costs: float = 0.0) -> None:
        self.clock, self.mark_costs, self.starts = clock, mark_costs, 0
        self.last = 0.0
        self.ended: list[tuple[str, float]] = []

    def start(self) -> None:
        self.starts += 1
        self.last, self.ended = self.clock.time, []

    def mark(self, label: str) -> None:
        self.clock.time += self.mark_costs
        self.ended.append((label, self.clock.time - self.last))
        self.last = self.clock.time

    def laps(self) -> list[tuple[str, float]]:
        return self.ended


def charging(kind: type[ReducedViT], clock: FakeClock) -> type[ReducedViT]:
    """The same kind of model, each of whose stages takes what COSTS says."""

    def charged(name: str) -> Callable[..., object]:
        def stage(self: ReducedViT, *arguments: object) -> object:
            clock.time += COSTS[name]
            return getattr(kind, name)(self, *arguments)

        return stage

    return type("Charging", (kind,), {name: charged(name) for name in COSTS})


def times(
    backbone: TimmViT,
    images: torch.Tensor,
    kind: type[ReducedViT] = ReducedViT,
    *,
    layers: tuple[int, ...] = LAYERS,
    steps: int = 1,
    mark_costs: float = 0.0,
    rename: Mapping[str, Part] | None = None,
    **options: bool,
) -> PassTimes:
    """Seconds of every turn of one burst; ``rename`` attributes a part to another."""
    clock = FakeClock()
    stopwatch = FakeStopwatch(clock, mark_costs)
    mark, kind = marker(stopwatch, "m"), charging(kind, clock)
    watched = marked(kind, lambda part: mark((rename or {}).get(part, part)))
    plain, parts = (k(backbone, get_method("tome"), layers, **options) for k in (kind, watched))
    model = TimedModel("m", lambda: plain(images), lambda: parts(images))
    with torch.inference_mode():
        turns = time_burst([model], steps, stopwatch, random.Random(0))
    assert stopwatch.starts == 1
    assert turns == [turns[0]] * steps
    return turns[0]["m"]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("kind", "parts"), [(ReducedViT, MERGED), (SlicedViT, SLICED)])
def test_every_stage_counts_for_its_part_and_they_add_up(backbone, images, kind, parts, steps):
    found = times(backbone, images, kind, steps=steps)
    assert found.parts == parts
    assert found.total == found.plain == sum(parts.values())
    assert found.in_blocks == found.total - 1.5
    assert found.agreement == 1
    assert found.adds_up


@pytest.mark.parametrize("swapped", [{"matching": "merging"}, {"merging": "rest"}, {"attention": "mlp"}])
def test_a_stage_that_counts_for_another_part_is_noticed(backbone, images, swapped):
    assert times(backbone, images, rename=swapped).parts != MERGED


def test_without_merging_nothing_is_matched(backbone, images):
    assert times(backbone, images, layers=(0,) * 6).parts == SLICED


def test_what_prefix_only_slices_off_is_not_matched(backbone, images):
    found = times(backbone, images, prefix_only=True)
    assert found.parts == {**MERGED, "matching": 1.0, "merging": 0.5}


def test_marks_that_take_time_are_seen_in_the_sum(backbone, images):
    # A pass has 24 marks: one before the blocks and one after them, and for six blocks two, five times two more.
    found = times(backbone, images, mark_costs=0.0625)
    assert found.total == sum(MERGED.values()) + 24 * 0.0625
    assert found.plain == sum(MERGED.values()) + 0.0625
    assert found.adds_up
    found = times(backbone, images, mark_costs=0.125)
    assert found.agreement > 1.05
    assert not found.adds_up


def test_models_run_in_turn_and_in_a_random_order():
    order: list[str] = []
    stopwatch = FakeStopwatch(FakeClock())

    def model(name: str) -> TimedModel:
        return TimedModel(name, lambda: order.append(name), lambda: order.append(f"{name} marked"))

    seen = set()
    for seed in range(20):
        order.clear()
        assert len(time_burst([model("a"), model("b")], 2, stopwatch, random.Random(seed))) == 2
        assert order[:4] == order[4:]
        assert set(order) == {"a", "a marked", "b", "b marked"}
        seen.add(tuple(order))
    assert len(seen) > 5


@pytest.mark.parametrize("kind", [ReducedViT, SlicedViT])
@pytest.mark.parametrize("layers", [(0,) * 6, LAYERS])
@pytest.mark.parametrize("options", [{}, {"prop_attn": False}, {"prefix_only": True}])
def test_marks_do_not_change_a_bit(backbone, images, kind, layers, options):
    marks: list[Part] = []
    plain, watched = (k(backbone, get_method("tome"), layers, **options) for k in (kind, marked(kind, marks.append)))
    with torch.inference_mode():
        assert torch.equal(plain(images), watched(images))
    assert marks[0] == marks[-1] == "rest"
    assert set(marks) <= set(PARTS)


def a_turn(seconds: float) -> PassTimes:
    return PassTimes(dict.fromkeys(PARTS, seconds), 6 * seconds)


def test_a_typical_pass_is_the_mean_of_the_quieter_half_of_the_turns():
    turns = [{"m": a_turn(seconds), "c": a_turn(0.5)} for seconds in (8.0, 1.0, 100.0, 2.0, 3.0)]
    found = typical_ms(turns)
    assert found == {"m": a_turn(2000.0), "c": a_turn(500.0)}
    assert found["m"].total == 10_000
    assert found["m"].plain == 12_000


def test_a_turn_that_was_busy_is_left_out_whole():
    quiet, busy = {"m": a_turn(1.0), "c": a_turn(1.0)}, {"m": a_turn(0.5), "c": a_turn(9.0)}
    assert typical_ms([busy, quiet]) == {"m": a_turn(1000.0), "c": a_turn(1000.0)}


def test_the_cpu_stopwatch_measures_what_lies_between_marks(monkeypatch):
    readings = iter([10.0, 11.0, 13.0, 17.0, 20.0, 20.5])
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: next(readings))
    stopwatch = stopwatch_for(torch.device("cpu"))
    assert isinstance(stopwatch, CpuStopwatch)
    stopwatch.start()
    for label in ("a", "b", "a"):
        stopwatch.mark(label)
    assert stopwatch.laps() == [("a", 1.0), ("b", 2.0), ("a", 4.0)]
    stopwatch.start()
    stopwatch.mark("b")
    assert stopwatch.laps() == [("b", 0.5)]


class FakeCuda:
    """Stands in for torch.cuda: an event is recorded at the number of the call, and read after a synchronisation."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events = 0

    def synchronize(self, device: torch.device) -> None:
        self.log.append(f"synchronize {device}")

    def current_stream(self, device: torch.device) -> str:
        return f"stream of {device}"

    def Event(self, enable_timing: bool) -> object:  # noqa: N802
        assert enable_timing
        fake = self
        fake.events += 1

        class Event:
            at = 0

            def record(self, stream: str) -> None:
                assert stream == "stream of cuda:0"
                fake.log.append("record")
                self.at = len(fake.log)

            def elapsed_time(self, end: Event) -> float:
                assert fake.log[-1] == "synchronize cuda:0"
                return 1000.0 * (end.at - self.at)

        return Event()


def test_the_cuda_stopwatch_waits_before_and_after_but_never_in_between(monkeypatch):
    fake = FakeCuda()
    for name in ("synchronize", "current_stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    stopwatch = stopwatch_for(torch.device("cuda:0"))
    assert isinstance(stopwatch, CudaStopwatch)
    for labels in (("a", "b", "a"), ("b",)):
        fake.log.clear()
        stopwatch.start()
        for label in labels:
            stopwatch.mark(label)
        assert stopwatch.laps() == [(label, 1.0) for label in labels]
        assert fake.log == ["synchronize cuda:0", *["record"] * (1 + len(labels)), "synchronize cuda:0"]
    assert fake.events == 4, "events are used again"


def test_the_real_stopwatch_agrees_with_the_real_clock(backbone, images):
    stopwatch, clock = stopwatch_for(torch.device("cpu")), clock_for(torch.device("cpu"))
    assert isinstance(clock, CpuClock)
    found = []

    def burst() -> None:
        found.append(real_burst(backbone, images, stopwatch))

    wall = clock.burst(burst, 1)
    assert all(seconds > 0 for seconds in found[0].parts.values())
    assert 0 < found[0].total < wall
    assert 0 < found[0].plain < wall - found[0].total


def real_burst(backbone: TimmViT, images: torch.Tensor, stopwatch: Stopwatch, steps: int = 1) -> PassTimes:
    kinds = (ReducedViT, marked(ReducedViT, marker(stopwatch, "m")))
    plain, watched = (kind(backbone, get_method("tome"), LAYERS) for kind in kinds)
    model = TimedModel("m", lambda: plain(images), lambda: watched(images))
    with torch.inference_mode():
        return time_burst([model], steps, stopwatch, random.Random(0))[-1]["m"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_parts_of_a_cuda_pass_add_up_to_the_plain_pass():
    device = torch.device("cuda")
    model = build_model("vit_base_patch16_224").model.to(device, torch.bfloat16)
    images = torch.randn(64, 3, 224, 224, device=device, dtype=torch.bfloat16)
    stopwatch = stopwatch_for(device)
    assert isinstance(stopwatch, CudaStopwatch)
    backbone = TimmViT(model)
    layers = (8,) * backbone.depth
    plain, watched = (
        kind(backbone, get_method("tome"), layers) for kind in (ReducedViT, marked(ReducedViT, marker(stopwatch, "m")))
    )
    timed = TimedModel("m", lambda: plain(images), lambda: watched(images))
    with torch.inference_mode():
        assert torch.equal(plain(images), watched(images))
        for _ in range(2):  # the first warms up
            turns = time_burst([timed], 20, stopwatch, random.Random(0))
    found = typical_ms(turns)["m"]
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.adds_up, f"{found.agreement:.1%}"
