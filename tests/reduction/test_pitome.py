"""PiToMe: equal to a reference of Python loops and to examples worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction import options_reference as reference
from reduction.contexts import contexts

from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.plan import merge
from tomebench.reduction.registry import get_method

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "mergeable": st.just("top"),
        "margin": st.just("augreg"),
        "metric": st.sampled_from(["q", "x"]),
        "combine": st.sampled_from(["mean", "max", "keep"]),
        "count_sizes": st.just(True),
    },
)


def energy(rows: Sequence[Sequence[float]], i: int, margin: float) -> float:
    found = []
    for cosine in reference.scores(rows, i, range(len(rows)), "cosine").values():
        found.append(cosine - margin if cosine >= margin else math.exp(cosine - margin) - 1)
    return sum(found) / len(found)


def groups(ctx: Context, image: int, options: dict[str, object]) -> list[list[int]]:
    """Groups of tokens in the order of the output; the first of each is the token that stays."""
    metric, n = str(options.get("metric", "k")), ctx.x.shape[1]
    if metric == "x":
        rows = ctx.x[image].tolist()
    else:
        rows = reference.metric(getattr(ctx.heads, metric)[image].tolist(), "mean")
    rows = rows[ctx.prefix :]
    top = 0.9 if options.get("margin") == "augreg" else 0.75
    margin = top - top * ctx.layer / ctx.depth
    ranked = sorted(range(len(rows)), key=lambda i: (-energy(rows, i, margin), i))
    everybody = "mergeable" not in options and ctx.layer < math.ceil(ctx.depth / 2)
    ranked = ranked if everybody else ranked[: 2 * ctx.r]
    a, b = ranked[0::2], ranked[1::2]
    pairs = []
    for i in a:
        cosines = reference.scores(rows, i, b, "cosine")
        best = max(b, key=lambda j: cosines[j])
        pairs.append((cosines[best], i, best))
    pairs = sorted(pairs, key=lambda pair: -pair[0])[: ctx.r]
    moved = {ctx.prefix + i: ctx.prefix + j for _, i, j in pairs}
    stay = {token: [token] for token in range(n) if token not in moved}
    for i, j in moved.items():
        stay[j].append(i)
    return list(stay.values())


@given(contexts(), OPTIONS)
def test_equals_the_reference(ctx: Context, options: dict[str, object]) -> None:
    method = get_method("pitome", options)
    assert method.counts_sizes == bool(options.get("count_sizes"))
    plan = method.choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    assert torch.equal(x[:, : ctx.prefix], ctx.x[:, : ctx.prefix])
    n = ctx.x.shape[1]
    assert x.shape[1] == n - ctx.r
    for image in range(2):
        found = groups(ctx, image, options)
        if n - ctx.prefix == 2 and options.get("combine") == "keep":
            continue  # two patches have the same energy, and rounding says which of them stays
        sizes = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
        rows, expected = reference.combine(found, ctx.x[image].tolist(), sizes, str(options.get("combine", "weighted")))
        assert size[image].tolist() == expected
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)


@given(contexts())
def test_sizes_are_conserved_whichever_image_comes_first(ctx: Context) -> None:
    method, whole = get_method("pitome"), torch.ones(ctx.x.shape[:2]) if ctx.size is None else ctx.size
    x, size = merge(method.choose(ctx), ctx.x, ctx.size)
    assert torch.equal(size.sum(dim=1), whole.sum(dim=1))
    torch.testing.assert_close((size.unsqueeze(-1) * x).sum(dim=1), (whole.unsqueeze(-1) * ctx.x).sum(dim=1))


def directions(degrees: Sequence[float], r: int, layer: int, depth: int) -> Context:
    """A class token, and patches whose keys of various lengths have these directions in the plane."""
    rows = [[0.0, 0.0]]
    for number, degree in enumerate(degrees):
        length = 1 + number % 3
        rows.append([length * math.cos(math.radians(degree)), length * math.sin(math.radians(degree))])
    k = torch.tensor(rows, dtype=torch.float64)[None, None]
    x = torch.arange(len(rows), dtype=torch.float64)[None, :, None]
    return Context(x, x, Heads(k, k, k), None, None, r, 1, layer, depth, Constants(), True)


@pytest.mark.parametrize(
    ("r", "layer", "options", "expected"),
    [
        (1, 0, {}, {(2, 1)}),
        (2, 0, {}, {(2, 1), (4, 1)}),
        (3, 0, {}, {(2, 1), (4, 1), (5, 3)}),
        (1, 0, {"mergeable": "top"}, {(4, 3)}),
        (2, 0, {"mergeable": "top"}, {(2, 1), (4, 1)}),
        (1, 0, {"margin": "augreg"}, {(4, 2)}),
        (2, 0, {"margin": "augreg"}, {(4, 2), (3, 2)}),
        (1, 1, {}, {(3, 4)}),
        (2, 1, {}, {(3, 4), (2, 4)}),
    ],
)
def test_worked_by_hand(r: int, layer: int, options: dict[str, object], expected: set[tuple[int, int]]) -> None:
    """Patches 1 to 6 point to 0, 20, 50, 24, 90 and 180 degrees; there are two blocks.

    * Margin 0.75: energies -.138, -.057, -.051, -.046, -.237, -.583, so by rank 4 3 2 1 5 6. Split, 4, 2 and 5 choose
      among 3, 1 and 6: cos 24° = .914 to 1, cos 20° = .940 to 1, cos 40° = .766 to 3. Of the first two, 4 has only 3.
    * Margin 0.9: 2 (-.175) is before 3 (-.178), so 4, 3 and 5 choose among 2, 1 and 6: cos 4° = .998 to 2, cos 30° =
      .866 to 2, cos 70° = .342 to 2.
    * Second block, margin 0.375: 3 (.277) is before 4 (.274) and 2 (.259). Of the first two, 3 has only 4; of the
      first four, 3 and 2 choose among 4 and 1: cos 26° = .899 to 4, cos 4° = .998 to 4.
    """
    plan = get_method("pitome", options).choose(directions([0, 20, 50, 24, 90, 180], r, layer, 2))
    onto = plan.kept.gather(1, plan.into)
    assert set(zip(plan.moved[0].tolist(), onto[0].tolist(), strict=True)) == expected
