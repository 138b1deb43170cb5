"""DiffRate: equal to a reference of Python loops and to an example worked by hand; shares for every block."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import pytest
import torch
from backbones.zoo import build
from hypothesis import given
from hypothesis import strategies as st
from reduction import options_reference as reference
from reduction.contexts import contexts, make_context

from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.reduction.choices import Text, check_declared, range_of, typed
from tomebench.reduction.constants import Constants
from tomebench.reduction.method import BlockSize, Context, Heads
from tomebench.reduction.methods.diffrate import Diffrate
from tomebench.reduction.plan import merge
from tomebench.reduction.registry import get_method
from tomebench.reduction.schedule import all_but_one_patch


@given(contexts(all_but_one_patch), st.integers(0, 100))
def test_equals_the_reference(ctx: Context, percent: int) -> None:
    x, size = merge(get_method("diffrate", {"pruned": str(percent)}).choose(ctx), ctx.x, ctx.size)
    n, prefix = ctx.x.shape[1], ctx.prefix
    assert torch.equal(x[:, :prefix], ctx.x[:, :prefix])
    for image in range(2):
        tokens, q, k = ctx.x[image].tolist(), ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
        sizes = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
        attention = reference.attention(q, k, sizes, [0] if prefix else range(n))
        order = sorted(range(prefix, n), key=lambda token: (-attention[token], token))
        stay = sorted(order[: len(order) - ctx.r])
        groups, grown = {token: [token] for token in [*range(prefix), *stay]}, list(sizes)
        for token in order[len(stay) : len(order) - math.floor(ctx.r * percent / 100 + 0.5)]:
            cosines = reference.scores(tokens, token, stay, "cosine")
            onto = max(stay, key=lambda j: cosines[j])
            groups[onto].append(token)
            grown[onto] += sizes[token] * max(cosines[onto], 0)
        rows, _ = reference.combine(list(groups.values()), tokens, sizes, "mean")
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)
        assert size[image].tolist() == pytest.approx([grown[token] for token in groups], rel=1e-6)


def example(r: int) -> Context:
    """A class token and patches 1 to 6, to which it attends in the order 3, 1, 5, 2, 6, 4."""
    k = torch.tensor([9.0, 5, 3, 6, 1, 4, 2], dtype=torch.float64)[None, None, :, None]
    x = torch.tensor([[1.0, 1], [0, 2], [3, 4], [5, 0], [8, 8], [1, 1], [0, -6]], dtype=torch.float64)[None]
    return Context(x, x, Heads(torch.ones_like(k), k, k), None, None, r, 1, 0, 2, Constants(), True)


@pytest.mark.parametrize(
    ("r", "pruned", "left", "sizes"),
    [
        (1, "100", [[1, 1], [0, 2], [3, 4], [5, 0], [1, 1], [0, -6]], [1, 1, 1, 1, 1, 1]),
        (1, "0", [[1, 1], [0, 2], [3, 4], [5, 0], [4.5, 4.5], [0, -6]], [1, 1, 1, 1, 2, 1]),
        (3, "67", [[1, 1], [0, 2], [5, 0], [2, 2.5]], [1, 1, 1, 1 + 7 / math.sqrt(50)]),
        (3, "30", [[1, 1], [0, 2], [5 / 2, -3], [2, 2.5]], [1, 1, 1, 1 + 7 / math.sqrt(50)]),
        (3, "30-67", [[1, 1], [0, 2], [5 / 2, -3], [2, 2.5]], [1, 1, 1, 1 + 7 / math.sqrt(50)]),
    ],
)
def test_worked_by_hand(r: int, pruned: str, left: list[list[float]], sizes: list[float]) -> None:
    """Last comes 4: dropped, or merged into 5, in whose direction it points.

    Of three, 67 % are two: 4 and 6 are dropped, and 2 (3, 4) joins 5 (1, 1), cosine 7 / (5 √2) = .99, against .8 to 1
    and .6 to 3. 30 % are one, 4, so 6 (0, -6) is merged: cosines -1 to 1, 0 to 3 and -.71 to 5; 3 grows by nothing.
    """
    x, size = merge(get_method("diffrate", {"pruned": pruned}).choose(example(r)), example(r).x, None)
    torch.testing.assert_close(x[0], torch.tensor(left, dtype=torch.float64))
    assert size[0].tolist() == pytest.approx(sizes, rel=1e-6)


def test_a_list_has_one_share_for_every_block() -> None:
    method, moved = get_method("diffrate", {"pruned": "0-50-100"}), []
    for layer in range(3):
        ctx = dataclasses.replace(make_context(14, 1, 6, layer=layer), depth=3)
        moved.append(method.choose(ctx).moved.shape[1])
    assert moved == [6, 3, 0]
    with pytest.raises(SpecError, match="pruned has 3 percentages, and the model 6 blocks; give one for each"):
        apply(build("test_vit", {}), 2, method="diffrate", pruned="0-50-100")
    block = BlockSize(head_dim=4, heads_dim=12, token_dim=16)
    assert method.cost(14, 6, block) == 14 * 12 + 3 * 8 * 16


@pytest.mark.parametrize("text", ["", "101", "-1", "50-", "5.5", "050", "a", "50\n"])
def test_what_is_no_list_of_percentages_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="use one percentage, or one for every block as in 0-30-60"):
        typed(Diffrate, "pruned", text)
    with pytest.raises(SpecError, match="pruned is"):
        get_method("diffrate", {"pruned": text})
    assert typed(Diffrate, "pruned", "0-30-100") == "0-30-100"
    assert range_of(Diffrate, "pruned").startswith("one percentage, or one for every block")


@pytest.mark.parametrize(("usual", "example"), [("", "a"), ("A", "a"), (1, "a"), ("a", "A"), ("a", "a,a")])
def test_an_option_of_text_has_a_default_and_examples_of_its_form(usual: object, example: str) -> None:
    def declared(usual: object, example: str) -> type:
        hint = Annotated[str, Text("[a-z,]+", "small letters", (example,))]
        return dataclasses.make_dataclass("Worded", [("side", hint, usual)])

    check_declared(declared("a", "b"))
    with pytest.raises(SpecError, match="option side needs a default and examples of its form"):
        check_declared(declared(usual, example))


def test_growth_by_a_product_is_that_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = make_context(14, 1, 9, sized=True)
    plan = get_method("diffrate", {"pruned": "0"}).choose(ctx)
    in_order = merge(plan, ctx.x, ctx.size)[1]
    monkeypatch.setattr("tomebench.reduction.plan._adds_in_order", lambda x: False)
    torch.testing.assert_close(merge(plan, ctx.x, ctx.size)[1], in_order)
