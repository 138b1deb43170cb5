"""DynamicViT: equal to a reference of Python loops, an example worked by hand; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from reduction.contexts import contexts, make_context
from reduction.groups import Groups, Rows, check_against
from reduction.learned_files import predictors_file, random_predictors, write_predictors
from safetensors.torch import save_file
from torch import Tensor, nn

from tomebench.backbones.apply import apply
from tomebench.errors import ModelError, SpecError
from tomebench.reduction.learned import read_learned
from tomebench.reduction.method import BlockSize, Context
from tomebench.reduction.methods.dynamicvit import DynamicViT
from tomebench.reduction.predictors import KEEP, Predictor, native_r, usual_blocks


def gelu(value: float) -> float:
    return 0.5 * value * (1 + math.erf(value / math.sqrt(2)))


def linear(row: Sequence[float], weight: Rows, bias: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, line, strict=True)) + c for line, c in zip(weight, bias, strict=True)]


def keep_probability(x: Rows, state: dict[str, Tensor]) -> list[float]:
    """What one predictor makes of patches, in Python loops."""
    w = {name: value.tolist() for name, value in state.items()}
    read = []
    for row in x:
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row) + 1e-5)
        normed = [
            (value - mean) / spread * scale + shift
            for value, scale, shift in zip(row, w["read.0.weight"], w["read.0.bias"], strict=True)
        ]
        read.append([gelu(value) for value in linear(normed, w["read.1.weight"], w["read.1.bias"])])
    own = len(x[0]) // 2
    whole = [sum(row[c] for row in read) / len(read) for c in range(own, len(x[0]))]
    found = []
    for row in read:
        z = [*row[:own], *whole]
        z = [gelu(value) for value in linear(z, w["decide.0.weight"], w["decide.0.bias"])]
        z = [gelu(value) for value in linear(z, w["decide.2.weight"], w["decide.2.bias"])]
        drop, keep = linear(z, w["decide.4.weight"], w["decide.4.bias"])
        found.append(1 / (1 + math.exp(drop - keep)))
    return found


@given(contexts(DynamicViT.cap, learned=True))
def test_it_equals_its_reference(ctx: Context) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        assert ctx.learned is not None
        rows = ctx.x[image].tolist()
        state = ctx.learned.at[str(ctx.layer + 1)].state_dict()  # type: ignore[index, operator, union-attr]
        score = keep_probability(rows[ctx.prefix :], state)
        order = sorted(range(len(score)), key=lambda t: (-score[t], t))[: len(score) - ctx.r]
        groups = {t: [t] for t in [*range(ctx.prefix), *sorted(t + ctx.prefix for t in order)]}
        return groups, [rows[t] for t in groups]

    check_against(DynamicViT(), ctx, expected)


def test_worked_by_hand() -> None:
    """Two kinds of tokens of two channels. After the norm and GELU they are (0.841, -0.159) and (-0.159, 0.841).

    The mean of the second channel is 0.341, so that the sums are 1.183 and 0.183; after two more GELU 0.888 and
    0.0566 say against 0 how surely a patch is kept.
    """
    predictor = Predictor(2).double()
    with torch.no_grad():
        for layer in predictor.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.fill_(1)
                layer.bias.zero_()
        predictor.read[1].weight.copy_(torch.eye(2))  # type: ignore[union-attr]
        predictor.decide[4].weight.copy_(torch.tensor([[0.0], [1.0]]))  # type: ignore[union-attr]
    kinds = torch.tensor([[1, 0], [0, 1]], dtype=torch.float64)
    x = kinds[[0, 1, 1, 0, 1, 0]][None] * 1000  # so large that the norm's epsilon is nothing beside their variance
    probability = predictor(x)[0, :, KEEP].exp()
    sure, unsure = 1 / (1 + math.exp(-0.8876)), 1 / (1 + math.exp(-0.0566))
    torch.testing.assert_close(
        probability, torch.tensor([sure, unsure, unsure, sure, unsure, sure]).double(), rtol=0, atol=2e-4
    )
    of_kept = predictor(x, torch.tensor([[1.0, 0, 0, 1, 0, 1]]).double())[0, :, KEEP].exp()
    assert (of_kept < probability).all(), "the mean is that of kept patches alone, -0.159"

    class Stand(nn.Module):
        def forward(self, block: int, patches: Tensor) -> Tensor:
            assert block == 3
            return predictor(patches)  # type: ignore[no-any-return]

    ctx = make_context(7, 1, 4, batch=1, layer=2, dtype=torch.float64)
    ctx = dataclasses.replace(ctx, x=torch.cat([torch.zeros(1, 1, 2).double(), x], dim=1), learned=Stand())
    for r, kept in ((2, [0, 1, 2, 4, 6]), (3, [0, 1, 4, 6]), (4, [0, 1, 4]), (5, [0, 1])):
        plan = DynamicViT().choose(dataclasses.replace(ctx, r=r))
        assert plan.kept.tolist() == [kept]


def test_the_schedule_of_the_paper() -> None:
    """196 patches at a keep rate of 0.7: 137, 96 and 67 are left before blocks 3, 6 and 9."""
    assert usual_blocks(12) == (3, 6, 9)
    assert native_r((3, 6, 9), 0.7, 196, 12) == (0, 0, 59, 0, 0, 41, 0, 0, 29, 0, 0, 0)
    assert native_r((1,), 0.01, 4, 2) == (3, 0), "a patch stays"
    assert usual_blocks(8) == (2, 4, 6)
    assert usual_blocks(2) == (1,)


def test_the_cost_is_that_of_its_layers_and_of_the_mlp_of_what_it_drops() -> None:
    assert DynamicViT().cost(10, 4, BlockSize(2, 8, 8, 100)) == 10 * (64 + 32 + 8 + 4) + 400


@pytest.fixture
def vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=5, img_size=64).eval()  # type: ignore[no-any-return]


def test_without_weights_it_is_refused(vit: nn.Module) -> None:
    with pytest.raises(SpecError, match="never run with random ones; give --predictors FILE"):
        apply(vit, 2, method="dynamicvit")
    apply(vit, 0, method="dynamicvit")
    with pytest.raises(SpecError, match="weights of a trained method, and topk is none; leave predictors out"):
        apply(vit, 2, method="topk", predictors=predictors_file(64, 6))


def test_weights_are_those_of_the_file_and_nothing_is_drawn(vit: nn.Module) -> None:
    before = torch.get_rng_state()
    reduced = apply(vit, [2, 0, 0, 0, 0, 0], method="dynamicvit", predictors=predictors_file(64, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert reduced.learned is not None
    for name, weights in reduced.learned.state_dict().items():
        assert torch.equal(weights, read_learned(predictors_file(64, 6)).tensors[name])
    assert not any(weights.requires_grad for weights in reduced.learned.parameters())


def test_tokens_go_where_predictors_stand(vit: nn.Module, tmp_path: Path) -> None:
    """16 patches; the message gives the schedule that the weights were trained for."""
    file = write_predictors(tmp_path / "p.safetensors", random_predictors([2, 4], 64))
    with pytest.raises(SpecError, match=r"in the blocks 1, 3 only, .* block 0; use --schedule list:0,5,0,4,0,0$"):
        apply(vit, 2, method="dynamicvit", predictors=file)
    reduced = apply(vit, [0, 5, 0, 4, 0, 0], method="dynamicvit", predictors=file)
    assert reduced.token_counts == [17, 12, 12, 8, 8, 8]
    other = apply(vit, [0, 5, 0, 4, 0, 0], method="dynamicvit", predictors=predictors_file(64, 6))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(reduced.source_map(images), other.source_map(images)), "its weights decide"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", "No such file or directory; give the file that train-predictors wrote"),
        ("text", "no readable safetensors file"),
        ("other", "no readable safetensors file"),
        ("broken", "holds no predictors"),
        ("vast", r"holds no predictors \(.*size mismatch"),
        ("share", r"holds no predictors \(a share to keep of 1.5\)"),
        ("narrow", "made for tokens of 32 channels, those of the model have 64"),
        ("deep", "cannot stand before the blocks 3,6,9 of a model of 6 blocks"),
    ],
)
def test_another_file_is_refused_in_a_line(vit: nn.Module, tmp_path: Path, name: str, says: str) -> None:
    file = tmp_path / "p.safetensors"
    match name:
        case "text":
            file.write_text("no weights")
        case "other":
            save_file({"a": torch.ones(2)}, file)
        case "broken":
            write_predictors(file, random_predictors([2], 64), width=48)
        case "vast":  # of which no memory is taken
            write_predictors(file, random_predictors([2], 64), width=10**8)
        case "share":
            write_predictors(file, random_predictors([2], 64), keep=1.5)
        case "narrow":
            write_predictors(file, random_predictors([2], 32))
        case "deep":
            write_predictors(file, random_predictors([3, 6, 9], 64))
    with pytest.raises(ModelError, match=says) as refused:
        apply(vit, [0, 2, 0, 0, 0, 0], method="dynamicvit", predictors=file)
    assert "\n" not in str(refused.value)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = write_predictors(tmp_path / "p.safetensors", random_predictors([2], 8))
    first = read_learned(file)
    assert read_learned(file) is first
    write_predictors(file, random_predictors([2], 16))
    assert read_learned(file).digest != first.digest
