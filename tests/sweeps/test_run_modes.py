"""How a sweep runs its passes: with the ceiling beside them, compiled, as CUDA graphs, as training steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hurry import hurry
from torch import Tensor

from tomebench.errors import DeviceError, SpecError
from tomebench.measure import compilation
from tomebench.models.create import load_model
from tomebench.reduction.vit import ReducedViT
from tomebench.runs.row import Row
from tomebench.runs.store import Store
from tomebench.schema import CEILING, SENTINEL, UNWRAPPED
from tomebench.sweeps import job, run
from tomebench.sweeps.cells import resolve_cells
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Event, Finished, Note
from tomebench.sweeps.passes import Passes


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def sweep(directory: Path, **settings: object) -> tuple[list[Event], list[Row]]:
    defaults = {"model": "test_vit", "r": "0,8", "device": "cpu", "batch_size": 2, "budget": "quick", "workers": 0}
    config: SweepConfig = load_config([], {**defaults, **settings})
    events = list(run.run_sweep(config, directory, lambda: False))
    assert isinstance(events[-1], Finished)
    return events, list(events[-1].rows)


def notes(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Note))


def test_the_ceiling_is_timed_in_the_same_rounds_beside_its_cell(tmp_path: Path) -> None:
    _, rows = sweep(tmp_path / "run", r="0,8,16", ceiling=True)
    assert [row.speedup_ceiling is not None for row in rows] == [False, True, True]
    assert [row.merge_overhead_lo is not None for row in rows] == [False, True, True]
    with Store.read(tmp_path / "run") as store:
        keys = [cell.key for cell, _ in store.cells()]
        for round_ in store.rounds():
            order = [burst.variant for burst in round_.bursts]
            assert set(order) == {*keys, CEILING + keys[1], CEILING + keys[2], SENTINEL, UNWRAPPED}
            for key in keys[1:]:
                assert abs(order.index(key) - order.index(CEILING + key)) == 1


def test_without_asking_there_is_no_ceiling(tmp_path: Path) -> None:
    _, rows = sweep(tmp_path / "run")
    assert all(row.speedup_ceiling is row.merge_overhead is None for row in rows)


@pytest.mark.parametrize("attention", ["sdpa", "padded", "matmul", "augmented"])
def test_the_row_says_which_kernel_ran(tmp_path: Path, attention: str) -> None:
    _, rows = sweep(tmp_path / "run", attention=attention)
    assert {row.attention for row in rows} == {attention}
    expected = {
        "sdpa": ("sdpa-flash", "sdpa-flash then sdpa-flash+bias"),
        "padded": ("padded sdpa-flash", "padded sdpa-flash then padded sdpa-flash+bias"),
        "matmul": ("matmul", "matmul"),
        "augmented": ("sdpa-flash", "sdpa-flash then augmented"),
    }[attention]
    assert tuple(row.attn_kernel for row in rows) == expected


def test_prefix_only_is_an_option_of_the_cells_and_counts_in_the_costs(tmp_path: Path) -> None:
    _, plain = sweep(tmp_path / "plain")
    _, short = sweep(tmp_path / "short", prefix_only=True)
    assert [row.options for row in short] == ["prefix_only=true prop_attn=true"] * 2
    assert [row.tokens[-1] for row in short] == [1, 1]
    assert all(a.gmacs < b.gmacs for a, b in zip(short, plain, strict=True))
    assert short[1].gmacs_matching < plain[1].gmacs_matching
    with pytest.raises(SpecError, match=r"prefix-only: the head of .* pools over all tokens"):
        sweep(tmp_path / "avg", model="vit_base_patch16_siglip_gap_224", prefix_only=True)


@pytest.mark.parametrize("attention", ["efficient", "cudnn", "triton"])
def test_what_needs_cuda_is_refused_on_a_cpu(tmp_path: Path, attention: str) -> None:
    with pytest.raises(DeviceError, match=f"attention {attention} needs a CUDA GPU"):
        sweep(tmp_path / "run", attention=attention)
    with pytest.raises(DeviceError, match="--cuda-graphs needs a CUDA GPU"):
        sweep(tmp_path / "run", cuda_graphs=True)
    assert not (tmp_path / "run").exists()


# Training


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_steps_leave_the_weights_alone_and_cost_memory(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = run.load_model
    monkeypatch.setattr(run, "load_model", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    _, rows = sweep(tmp_path / "train", mode="train", dtype=dtype, ceiling=True)
    assert [row.status for row in rows] == ["ok", "ok"]
    assert {row.mode for row in rows} == {"train"}
    assert rows[1].merge_overhead is not None
    model = loaded[0].model
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    before = load("test_vit", seed=0).model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    _, infer = sweep(tmp_path / "infer")
    # Weights, their gradients and two moments: four copies, and activations on top.
    weights = sum(p.numel() * 4 for p in model.parameters()) / 2**20
    for train_row, infer_row in zip(rows, infer, strict=True):
        assert train_row.peak_mem_mib > 4 * weights
        assert weights < infer_row.peak_mem_mib < train_row.peak_mem_mib


def test_a_training_step_moves_weights_when_it_may() -> None:
    """The learning rate of 0 is what keeps the weights, not a step that does nothing."""
    from tomebench.measure.training import Trainer

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 3)
        trainer = Trainer(model, dtype, torch.device("cpu"))
        images, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
        before = model.weight.detach().clone()
        losses = [trainer.step(model, images, labels).item() for _ in range(2)]
        assert losses[0] == losses[1]
        assert torch.equal(model.weight, before)
        assert model.weight.grad is None
        assert trainer.state_bytes >= 2 * 21 * 4
        for group in trainer._optimizer.param_groups:
            group["lr"] = 0.1
        for _ in range(5):
            loss = trainer.step(model, images, labels)
        assert loss.item() < losses[0]
        assert not torch.equal(model.weight, before)


def test_a_step_that_fails_leaves_no_gradient_to_the_next_variant() -> None:
    from tomebench.measure.training import Trainer

    model = torch.nn.Linear(6, 3)
    trainer = Trainer(model, torch.float32, torch.device("cpu"))

    def fails_late(images: Tensor) -> Tensor:
        model(images).sum().backward()  # as a backward pass that ran out of memory halfway
        raise RuntimeError("out of memory")

    for call in (trainer.step, trainer.check):
        with pytest.raises(RuntimeError, match="out of memory"):
            call(fails_late, torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
        assert all(p.grad is None for p in model.parameters())


def test_every_batch_of_a_training_variant_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = job.timing_inputs

    def with_a_bad_one(*arguments: object) -> list[Tensor]:
        batches = inputs(*arguments)  # type: ignore[arg-type]
        batches[-1][0, 0, 0, 0] = float("inf")
        return batches

    monkeypatch.setattr(job, "timing_inputs", with_a_bad_one)
    with pytest.raises(RuntimeError, match="first training steps is NaN or infinite"):
        sweep(tmp_path / "run", mode="train")


# Compilation. The backend "eager" makes Dynamo trace, guard and limit as always, but generates no code.


@pytest.fixture
def dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    shallow = functools.partial(timm.create_model, depth=1)  # tracing takes a second for every few blocks
    monkeypatch.setattr("tomebench.models.create.timm.create_model", shallow)
    torch._dynamo.reset()


@pytest.mark.usefixtures("dynamo")
def test_every_value_of_r_is_a_graph_and_none_is_compiled_in_a_burst(tmp_path: Path) -> None:
    """Of more values than Dynamo recompiles one code object for, which are 8."""
    before = compilation.graphs_compiled()
    events, rows = sweep(tmp_path / "run", r="0..9", compile=True)
    assert compilation.graphs_compiled() - before == 12  # one for each r, the sentinel and the unwrapped model
    assert "12 graphs compiled in" in notes(events)
    assert [row.r for row in rows] == list(range(10))
    assert {row.status for row in rows} == {"ok"}
    assert all(row.compile and row.compile_s > 0 and row.img_per_s for row in rows)
    with Store.read(tmp_path / "run") as store:
        assert {burst.compiled for round_ in store.rounds() for burst in round_.bursts} == {0}


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("eager", marks=pytest.mark.slow)])
def test_training_in_half_precision_is_one_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Merging leaves autocast inside its own autograd function, which Dynamo has to follow."""
    monkeypatch.setattr(compilation, "BACKEND", backend)
    before = compilation.graphs_compiled()
    _, rows = sweep(tmp_path / "run", r="0,8", compile=True, mode="train", dtype="bf16")
    assert [(row.status, row.error) for row in rows] == [("ok", None)] * 2
    assert compilation.graphs_compiled() - before == 4


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_evaluating_uses_the_graphs_that_were_timed(tmp_path: Path, dtype: str) -> None:
    before = compilation.graphs_compiled()
    _, rows = sweep(tmp_path / "run", model="digits_vit", r="0,8", compile=True, dtype=dtype, data="digits", limit=4)
    assert all(row.top1 is not None for row in rows)
    assert compilation.graphs_compiled() - before == 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_25_values_of_r_with_generated_code(tmp_path: Path, mode: str) -> None:
    torch._dynamo.reset()
    before = compilation.graphs_compiled()
    _, rows = sweep(tmp_path / "run", r="0..24" if mode == "infer" else "0,8", compile=True, mode=mode)
    assert compilation.graphs_compiled() - before == len(rows) + 1
    assert {row.status for row in rows} == {"ok"}


@pytest.mark.usefixtures("dynamo")
def test_compiled_logits_are_the_logits(tmp_path: Path) -> None:
    from tomebench.backbones.apply import apply

    merged = apply(timm.create_model("test_vit").eval(), 8)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(compilation.compiled(merged)(images), merged(images), rtol=1e-5, atol=1e-5)


def restless(monkeypatch: pytest.MonkeyPatch, changes: Callable[[int], int]) -> None:
    """Let the pass at r = 8 depend on a number that ``changes`` with the calls, so that its guards fail."""
    forward, calls = ReducedViT.forward, [0]

    def changing(self: ReducedViT, images: Tensor) -> Tensor:
        return forward(self, images) + self.token_counts.count(-1) + getattr(self, "restless", 0)

    make = compilation.compiled

    def counted(module: ReducedViT) -> Callable[[Tensor], Tensor]:
        inner = make(module)

        def call(images: Tensor) -> Tensor:
            if getattr(module, "r_layers", (0,))[0] == 8:
                calls[0] += 1
                module.restless = changes(calls[0])
            return inner(images)

        return call

    monkeypatch.setattr(ReducedViT, "forward", changing)
    monkeypatch.setattr("tomebench.sweeps.passes.compiled", counted)


@pytest.mark.usefixtures("dynamo")
def test_a_recompilation_in_a_burst_is_reported_and_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restless(monkeypatch, lambda call: 0 if call < 7 else 1)
    _, rows = sweep(tmp_path / "run", r="0,4,8", compile=True)
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert "compiled inside a timed burst" in rows[2].error
    assert rows[2].img_per_s is None
    assert "RECOMPILED" in rows[2].warnings
    assert rows[1].img_per_s is not None


@pytest.mark.usefixtures("dynamo")
def test_more_recompilations_than_dynamo_allows_fail_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fullgraph Dynamo would go on in eager mode and the row would look healthy."""
    restless(monkeypatch, lambda call: call)
    with torch._dynamo.config.patch(recompile_limit=4):
        events, rows = sweep(tmp_path / "run", r="0,4,8", compile=True)
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert "more often than Dynamo's recompile limit allows" in rows[2].error
    assert rows[2].img_per_s is None
    assert "r=8" in notes(events)


def test_compiling_where_the_compiler_is_switched_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then torch.compile gives back what it is given."""
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    with pytest.raises(DeviceError, match="nothing would be compiled; something in this process has switched"):
        sweep(tmp_path, compile=True)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with pytest.raises(DeviceError, match="--compile: nothing would be compiled; unset TORCHDYNAMO_DISABLE=1"):
        sweep(tmp_path, compile=True)


@pytest.mark.usefixtures("dynamo")
def test_a_model_that_cannot_be_compiled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ReducedViT.forward

    def breaking(self: ReducedViT, images: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return forward(self, images)

    monkeypatch.setattr(ReducedViT, "forward", breaking)
    with pytest.raises(DeviceError, match="--compile: the model cannot be compiled here"):
        sweep(tmp_path / "run", compile=True)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_graphs_give_the_logits_of_eager_mode(compiled: bool) -> None:
    from tomebench.backbones.apply import apply
    from tomebench.measure.cuda_graph import GraphedForward

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = timm.create_model("test_vit").eval().cuda()
    pool = torch.cuda.graph_pool_handle()
    batches = [torch.randn(2, 3, 160, 160, device="cuda") for _ in range(3)]
    with torch.inference_mode():
        merged = {r: apply(model, r) for r in (0, 8, 16)}
        graphed = {r: GraphedForward(compilation.compiled(m) if compiled else m, pool) for r, m in merged.items()}
        for images in batches:  # interleaved: the graphs share their memory
            found = {r: graph(images) for r, graph in graphed.items()}
            for r, logits in found.items():
                torch.testing.assert_close(logits, merged[r](images), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="captured for images"):
        graphed[8](batches[0][:1])


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"compile": True}, {"cuda_graphs": True}, {"mode": "train"}], ids=str)
def test_every_mode_sweeps_on_cuda(tmp_path: Path, settings: dict[str, object]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, rows = sweep(tmp_path / "run", device="cuda", dtype="bf16", ceiling=True, **settings)
    assert {row.status for row in rows} == {"ok"}
    assert rows[1].merge_overhead is not None


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_sentinel_is_r_0_in_memory_of_its_own(mode: str) -> None:
    settings = load_config([], {"model": "test_vit", "r": "0,4", "device": "cpu", "batch_size": 2, "mode": mode})
    loaded = load_model(settings.model_spec)
    loaded.model.train(mode == "train")
    planned = resolve_cells(settings, loaded, weights=loaded.weights, batch_size=2, device="cpu")
    passes = Passes(settings, loaded.model, planned, torch.device("cpu"))
    images = [torch.randn(2, 3, 160, 160)]
    steps = [passes.step(name, images) for name in (passes.baseline, SENTINEL)]
    for step in steps:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            step()
    pairs = [*zip(*(passes.model_of(name).parameters() for name in (passes.baseline, SENTINEL)), strict=True)]
    assert len(pairs) > 10
    assert all(torch.equal(*pair) for pair in pairs), "a step of either takes it where the other went"
    assert not {one.data_ptr() for one, _ in pairs} & {other.data_ptr() for _, other in pairs}
