"""The choices that the paper ablates: each equal to a reference of Python loops, and to an example worked by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction import options_reference as reference
from reduction.contexts import contexts, make_context
from torch import Tensor

from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.reduction.constants import Constants
from tomebench.reduction.matching import draw
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.methods.flags import Options, choices
from tomebench.reduction.plan import merge
from tomebench.reduction.registry import get_method

MATCHINGS = choices("matching")


@st.composite
def options(draw_: st.DrawFn) -> Options:
    """Any that mean something together."""
    matching = draw_(st.sampled_from(MATCHINGS))
    found: dict[str, str] = {"matching": matching}
    if "prune" not in matching:
        found |= {
            "metric": draw_(st.sampled_from(choices("metric"))),
            "combine": draw_(st.sampled_from(choices("combine"))),
        }
        if not found["metric"].startswith("x"):
            found["heads"] = draw_(st.sampled_from(choices("heads")))
    if matching in ("bipartite", "greedy"):
        found["distance"] = draw_(st.sampled_from(choices("distance")))
    if matching == "bipartite":
        found["partition"] = draw_(st.sampled_from(choices("partition")))
    return Options(**found)  # type: ignore[arg-type]


def expected_groups(ctx: Context, o: Options, image: int) -> list[list[int]]:
    n = ctx.x.shape[1]
    q, k = ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
    size = [1.0] * n if ctx.bias_size is None else ctx.bias_size[image].tolist()
    if o.matching == "random-prune":
        dropped = draw(n, ctx.prefix, ctx.r, ctx.layer)
        return [[t] for t in range(n) if t not in dropped]
    if o.matching == "attention-prune":
        return reference.prune(reference.attention(q, k, size, [0] if ctx.prefix else range(n)), ctx.r, ctx.prefix)
    if o.metric.startswith("x"):
        rows = (ctx.x if o.metric == "x" else ctx.x_pre)[image].tolist()
    else:
        keys = o.metric.removesuffix("_rot")  # nothing is rotated here
        rows = reference.metric(getattr(ctx.heads, keys)[image].tolist(), o.heads)
    if o.matching.startswith("kmeans"):
        weight = reference.attention(q, k, size, range(n))
        return reference.kmeans(rows, weight, ctx.r, ctx.prefix, int(o.matching[-1]))
    if o.matching == "greedy":
        return reference.greedy(rows, ctx.r, ctx.prefix, o.distance)
    patches = range(ctx.prefix, n)
    in_a = {
        "alternating": [t for t in patches if t % 2 == 0],
        "sequential": list(patches[: len(patches) // 2]),
        "random": sorted(draw(n, ctx.prefix, len(patches) // 2, ctx.layer)),
    }[o.partition]
    return reference.bipartite(rows, ctx.r, ctx.prefix, o.distance, in_a)


def carried_out(ctx: Context, o: Options) -> tuple[Tensor, Tensor]:
    return merge(o.method().choose(ctx), ctx.x, ctx.size)


@given(contexts(), options())
def test_every_choice_equals_its_reference(ctx: Context, o: Options) -> None:
    x, size = carried_out(ctx, o)
    n = ctx.x.shape[1]
    assert x.shape[1] == n - ctx.r
    for image in range(len(x)):
        groups = expected_groups(ctx, o, image)
        sizes = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
        rows, expected = reference.combine(groups, ctx.x[image].tolist(), sizes, o.combine)
        assert size[image].tolist() == expected
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_reference_notices_another_choice(matching: str) -> None:
    """Of each kind of matching the reference groups other tokens than every other kind does."""
    ctx = make_context(14, 1, 4, seed=3)
    other = {o: expected_groups(ctx, Options(matching=o), 0) for o in MATCHINGS}  # type: ignore[arg-type]
    alike = [o for o in MATCHINGS if other[o] == other[matching]]
    assert alike == [matching] or set(alike) == {"kmeans-2", "kmeans-5"}


@given(contexts(), options())
def test_the_invariants_hold(ctx: Context, o: Options) -> None:
    method = o.method()
    plan = method.choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    assert torch.equal(x[:, : ctx.prefix], ctx.x[:, : ctx.prefix])
    assert plan.kept[:, : ctx.prefix].tolist() == [list(range(ctx.prefix))] * 2
    for image in range(2):
        used = plan.kept[image].tolist() + plan.moved[image].tolist()
        assert len(set(used)) == len(used)
        if method.merges:
            assert sorted(used) == list(range(plan.n_in))
    if method.merges:
        whole = torch.ones(ctx.x.shape[:2]) if ctx.size is None else ctx.size
        assert torch.equal(size.sum(dim=1), whole.sum(dim=1))
        if o.combine == "weighted":
            torch.testing.assert_close((size.unsqueeze(-1) * x).sum(dim=1), (whole.unsqueeze(-1) * ctx.x).sum(dim=1))
    swapped = dataclasses.replace(
        ctx,
        x=ctx.x.flip(0),
        x_pre=ctx.x_pre.flip(0),
        heads=Heads(*(each.flip(0) for each in ctx.heads[:3])),
        size=None if ctx.size is None else ctx.size.flip(0),
        bias_size=None if ctx.bias_size is None else ctx.bias_size.flip(0),
    )
    assert torch.equal(method.choose(swapped).dest.flip(0), plan.dest)


# --- worked by hand: a class token and six patches with keys in the plane

KEYS = [[0.0, 0.0], [1.0, 0.0], [10.0, 1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.5], [0.0, 3.0]]


def plane(r: int, keys: list[list[float]] = KEYS, queries: list[list[float]] | None = None) -> Context:
    k = torch.tensor(keys, dtype=torch.float64)[None, None]
    q = torch.tensor(queries, dtype=torch.float64)[None, None] if queries else torch.zeros_like(k)
    x = torch.arange(len(keys), dtype=torch.float64)[None, :, None]
    return Context(x, x, Heads(q, k, k), None, None, r, 1, 0, 1, Constants(), True)


def pairs(ctx: Context, **named: str) -> set[tuple[int, int]]:
    """(token that moves, token it goes to)."""
    plan = Options(**named).method().choose(ctx)  # type: ignore[arg-type]
    onto = plan.kept.gather(1, plan.into)
    return set(zip(plan.moved[0].tolist(), onto[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("named", "first", "second"),
    [
        ({}, (6, 3), (2, 1)),  # 6 points where 3 does: 1.000; 2 nearly where 1 does: 0.995; 4 to 5: 0.857
        ({"distance": "dot"}, (2, 5), (6, 3)),  # 20.5, then 3 against 2.5 of 4 and 5
        ({"distance": "euclidean"}, (4, 1), (6, 3)),  # 1, the lower of two at that distance; 2; the next 8.02
        ({"distance": "softmax"}, (2, 5), (6, 3)),  # 0.999; 0.682 against 0.591 of 4 and 5
        ({"partition": "sequential"}, (3, 6), (2, 5)),  # 1 to 3 against 4 to 6: 1.000; 0.990; 1 to 5: 0.970
        ({"matching": "greedy"}, (6, 3), (2, 1)),  # all pairs: 1.000, 0.995, and not 2 to 5 (0.990), since 2 is taken
        ({"matching": "greedy", "distance": "euclidean"}, (4, 1), (6, 3)),  # 1; 2, 3 being as far from 5: 2.06
    ],
)
def test_pairs_worked_by_hand(named: dict[str, str], first: tuple[int, int], second: tuple[int, int]) -> None:
    assert pairs(plane(1), **named) == {first}
    assert pairs(plane(2), **named) == {first, second}


def test_heads_worked_by_hand() -> None:
    """On average token 2 points more where 1 does; head by head more where 3 does."""
    k = torch.tensor([[[0, 0], [4, 0], [-2, 0], [1, 0]], [[0, 0], [0, 4], [4, 4], [1, 1]]], dtype=torch.float64)[None]
    x = torch.zeros(1, 4, 2, dtype=torch.float64)
    ctx = Context(x, x, Heads(k, k, k), None, None, 1, 1, 0, 1, Constants(), True)
    assert pairs(ctx) == {(2, 1)}  # means (2, 2), (1, 2), (1, .5): cosine .949 with 1, .800 with 3
    assert pairs(ctx, heads="concat") == {(2, 3)}  # products 8 and 6 over lengths 5.66 and 1.73


@pytest.mark.parametrize(
    ("combine", "row"), [("weighted", [6.0, 1.0]), ("mean", [4.0, 2.0]), ("max", [8.0, 4.0]), ("keep", [0.0, 4.0])]
)
def test_what_becomes_of_a_pair_worked_by_hand(combine: str, row: list[float]) -> None:
    ctx = plane(1)
    x = torch.zeros(1, 7, 2, dtype=torch.float64)
    x[0, 6], x[0, 3] = torch.tensor([8.0, 0.0]), torch.tensor([0.0, 4.0])
    size = torch.tensor([[1.0, 1, 1, 1, 1, 1, 3]])
    out, sizes = carried_out(dataclasses.replace(ctx, x=x, size=size), Options(combine=combine))  # type: ignore[arg-type]
    assert out[0, 4].tolist() == row  # class token, 2 and 4 of A, then 1 and 3 of B
    assert sizes[0].tolist() == [1, 1, 1, 1, 4, 1]


def test_pruning_by_attention_worked_by_hand() -> None:
    """The class token looks along the first axis: products 0, 1, 10, 0, 1, 2, 0; of equals the lower index stays."""
    method = Options(matching="attention-prune").method()
    queries = [[1.0, 0.0], *([0.0, 100.0] for _ in range(6))]
    assert method.choose(plane(1, queries=queries)).kept.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert method.choose(plane(3, queries=queries)).kept.tolist() == [[0, 1, 2, 5]]
    assert not method.merges


@pytest.mark.parametrize("iterations", [2, 5])
def test_kmeans_worked_by_hand(iterations: int) -> None:
    """Five patches on a line, all attended to alike, so that the first two are the seeds of two clusters."""
    named = {"matching": f"kmeans-{iterations}"}
    on_a_line = [[0.0], [0.0], [9.0], [0.1], [5.0], [5.2]]
    # From 0 and 9: {0, .1} and {9, 5, 5.2}, whose centres .05 and 6.4 keep them.
    assert pairs(plane(3, on_a_line), **named) == {(3, 1), (4, 2), (5, 2)}
    # From 0 and .1 all others join .1, whose centre 4.825 is then nearer to none: but a cluster keeps its seed.
    assert pairs(plane(3, [[0.0], [0.0], [0.1], [5.0], [5.2], [9.0]]), **named) == {(3, 2), (4, 2), (5, 2)}


def test_random_choices_are_uniform_and_the_same_for_every_image() -> None:
    found = Counter(itertools.chain.from_iterable(draw(21, 1, 10, layer) for layer in range(400)))
    assert set(found) == set(range(1, 21))
    assert 150 < min(found.values()) < 200 < max(found.values()) < 250
    plan = Options(matching="random-prune").method().choose(make_context(9, 1, 3))
    assert plan.kept[0].tolist() == plan.kept[1].tolist()


def test_metrics_are_what_their_names_say() -> None:
    from tomebench.reduction.metric import metric_of

    ctx = make_context(6, 1, 2)
    for name in ("q", "k", "v"):
        heads = getattr(ctx.heads, name)
        torch.testing.assert_close(metric_of(ctx, name, "mean"), heads.mean(dim=1))  # type: ignore[arg-type]
        side_by_side = metric_of(ctx, name, "concat")  # type: ignore[arg-type]
        assert torch.equal(side_by_side, torch.cat(heads.unbind(1), dim=-1))
    assert metric_of(ctx, "x", "mean") is ctx.x
    assert metric_of(ctx, "x_pre", "mean") is ctx.x_pre


@pytest.mark.parametrize("combine", choices("combine"))
def test_gradients_flow_through_what_a_group_becomes(combine: str) -> None:
    ctx = make_context(7, 1, 2, sized=True)
    plan = get_method("tome").choose(ctx)
    x = ctx.x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: merge(dataclasses.replace(plan, combine=combine), x, ctx.size)[0], x)  # type: ignore[arg-type]


@pytest.mark.parametrize("named", [{"partition": "random"}, {"matching": "random-prune"}], ids=str)
def test_a_random_choice_is_computed_in_a_compiled_pass_and_not_copied(named: dict[str, str]) -> None:
    """A list would be a tensor on the host: copied in every pass, and no part of a CUDA graph."""
    model, graphs = timm.create_model("test_vit", depth=2).eval(), list[torch.fx.GraphModule]()

    def keep(module: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(module)
        return module.forward

    merged = apply(model, 8, **named)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = torch.compile(merged, fullgraph=True, dynamic=False, backend=keep)(images)
        assert torch.equal(found, merged(images))
    (graph,) = graphs
    nodes = list(graph.graph.nodes)
    assert not [node for node in nodes if node.target is torch.tensor and isinstance(node.args[0], list | tuple)]
    assert not [node for node in nodes if node.op == "get_attr"]


@pytest.mark.parametrize(
    "named",
    [
        {"partition": "random", "distance": "euclidean", "combine": "max"},
        {"matching": "kmeans-2", "heads": "concat", "combine": "mean"},
        {"matching": "attention-prune"},
        pytest.param({"matching": "greedy", "metric": "x_pre"}, marks=pytest.mark.slow),
    ],
)
def test_compiled_and_eager_passes_differ_by_rounding_only(named: dict[str, str]) -> None:
    """Whole graphs of fixed shape: nothing is read back to the host. Then in training mode, with the same constants."""
    model = timm.create_model("test_vit", img_size=64, depth=2).eval()
    merged = apply(model, 3, **named)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        eager = merged(images)
        torch._dynamo.reset()
        compiled = torch.compile(merged, fullgraph=True, dynamic=False, backend="aot_eager")(images)
    # On some CPUs a compiled pass lays a tensor out another way, for which another kernel sums. A token that went
    # elsewhere differs a hundred times more.
    torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=2e-6)
    merged(images).sum().backward()
    assert all(p.grad is not None for p in model.blocks.parameters())


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"metric": "y"}, "metric is 'y'; use k, q, v, x, x_pre, k_rot"),
        ({"matching": "kmeans"}, "use bipartite, greedy, kmeans-2, kmeans-5, random-prune, attention-prune"),
        ({"matching": "greedy", "partition": "random"}, "matching greedy has no partition; leave partition out"),
        ({"matching": "random-prune", "metric": "q"}, "matching random-prune has no metric; leave metric out"),
        ({"metric": "x", "heads": "concat"}, "metric x has no heads"),
    ],
)
def test_what_means_nothing_is_refused(named: dict[str, str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Options(**named)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=says):
        apply(timm.create_model("test_vit"), 2, **named)


def test_a_word_that_is_no_option_is_refused() -> None:
    with pytest.raises(SpecError, match="there is no option 'metrics'; use metric, heads"):
        apply(timm.create_model("test_vit"), 2, metrics="q")
