"""What every method of the registry owes: r = 0 is the model; any kind of prefix, bf16, torch.compile; its MACs."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from reduction.contexts import make_context
from reduction.learned_files import predictors_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.reduction.method import BlockSize, Heads
from tomebench.reduction.registry import METHODS, get_method
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT

R = (0, 3, 2, 3)
"""More than one block reduces, so that sizes and what a method makes of them come back to it."""
R_TRAINED = (3, 2, 3, 0)
"""The same for methods whose predictors stand before blocks: nothing can go after the last."""


def reduced_by(name: str, vit: nn.Module, r: tuple[int, ...] = R) -> ReducedViT:
    """The model with its tokens reduced by a method, of which a trained one gets random weights."""
    if not get_method(name).trained:
        return apply(vit, r, method=name)
    return apply(vit, R_TRAINED, method=name, predictors=predictors_file(32, 4))


def _vit(**more: object) -> nn.Module:
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2, "num_classes": 5, "depth": 4}
    kind = VisionTransformerDistilled if more.pop("distilled", False) else VisionTransformer
    return kind(**{**shape, **more}).eval()  # type: ignore[arg-type]


MODELS = {
    "class token": {},
    "distilled": {"distilled": True},
    "registers": {"reg_tokens": 4},
    "registers only": {"reg_tokens": 4, "class_token": False, "global_pool": "avg"},
    "no prefix": {"class_token": False, "global_pool": "avg"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
}


@functools.cache
def model(kind: str) -> nn.Module:
    torch.manual_seed(7)
    made = _vit(**MODELS[kind])
    with torch.no_grad():
        for weights in made.parameters():  # far from the start of training, where all tokens look alike
            weights.add_(0.1 * torch.randn_like(weights))
    return made


@functools.cache
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_on_models_with_every_kind_of_prefix(name: str, kind: str) -> None:
    vit = model(kind)
    assert torch.equal(apply(vit, 0, method=name)(images()), vit(images())), "r = 0 is the model itself, bit for bit"
    reduced = reduced_by(name, vit)
    tokens = adapt(vit).tokens
    assert reduced.token_counts == [tokens - sum(reduced.r_layers[: block + 1]) for block in range(4)]
    assert reduced.token_counts[-1] == tokens - 8
    features, _ = reduced.features_and_sizes(images())
    assert features.shape[1] == tokens - 8
    logits = reduced(images())
    assert logits.isfinite().all()
    assert not torch.equal(logits, vit(images()))
    for image in range(3):  # no image looks at another
        alone = reduced(images()[image : image + 1])
        torch.testing.assert_close(alone[0], logits[image], rtol=0, atol=1e-4)
    sources = reduced.source_map(images())
    prefix = adapt(vit).prefix
    assert torch.equal(sources[:, :prefix], torch.arange(prefix).expand(3, -1)), "the prefix stays where it is"
    if get_method(name).merges:
        assert {*sources.flatten().tolist()} >= {*range(tokens - 8)}


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_in_bf16_as_many_tokens_are_left(name: str) -> None:
    half = _vit().bfloat16()
    features, _ = reduced_by(name, half).features_and_sizes(images().bfloat16())
    assert features.dtype == torch.bfloat16
    assert features.shape[1] == 17 - 8
    assert features.isfinite().all()


class Bare:
    """A backbone of two blocks that compute next to nothing, since tracing those of a model takes longer than a method.

    Graphs of whole models are those of ``test_options.py`` and of the sweeps that compile.
    """

    model, depth, prefix, class_token, head_reads_prefix_only, tokens = nn.Identity().eval(), 2, 1, True, True, 17
    rotary, mlp_first = "no", False

    def embed(self, images: Tensor) -> Tokens:
        return Tokens(images)

    def attention(self, layer: int, tokens: Tokens, route: str) -> tuple[Tensor, Heads]:
        three = (tokens.x.roll(shift, 2).unflatten(2, (2, 16)).transpose(1, 2) for shift in range(3))
        return tokens.x + tokens.x.roll(1, 2), Heads(*three)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        return x + x.tanh()

    def norm(self, x: Tensor) -> Tensor:
        return x

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool) -> Tensor:
        """The tokens, and their sizes beside them."""
        return features if size is None else torch.cat([features, size.unsqueeze(2)], dim=2)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_compiled_as_one_graph(name: str) -> None:
    method = get_method(name)
    if (
        method.trained or method.pads
    ):  # predictors stand in the blocks of the whole depth; padding is masked in attention
        reduced, given = reduced_by(name, model("class token")), images()
    else:
        reduced = ReducedViT(Bare(), method, R[1:3])  # type: ignore[arg-type]
        given = torch.randn(3, Bare.tokens, 32, generator=torch.Generator().manual_seed(1))
    torch.compiler.reset()
    compiled = torch.compile(reduced, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(given), reduced(given))


@pytest.mark.parametrize("kind", ["class token", "no prefix", "attention pooling"])
@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_reaches_every_weight(name: str, kind: str) -> None:
    """Under autocast, as training in half precision runs: what is dropped or padded spoils no gradient."""
    vit = copy.deepcopy(model(kind)).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = reduced_by(name, vit)(images()).float().square().sum()
    loss.backward()
    for weights in vit.parameters():
        assert weights.grad is not None
        assert weights.grad.isfinite().all()


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("name", METHODS)
def test_macs_are_those_of_its_matrix_products(name: str, prefix: int) -> None:
    """Counted by torch as it runs; what is no matrix product (sorting, sums) is not counted, as for the model.

    Eigenvectors of N tokens are charged 9 N³ operations.
    """
    method, n, r = get_method(name), 197, 16
    ctx = make_context(n, prefix, r, batch=1, heads=3, d=64, dtype=torch.float32, learned=method.trained)
    eigh = {torch.ops.aten._linalg_eigh: lambda shape, *more, **named: 9 * shape[-1] ** 3}
    with FlopCounterMode(display=False, custom_mapping=eigh) as counter:
        method.choose(ctx)
    counted = counter.get_total_flops() / 2
    cost = method.cost(n, r, BlockSize(64, 192, 192, class_token=prefix == 1))
    assert counted <= 1.01 * cost
    if not method.after_mlp:
        assert cost <= 1.1 * counted + 1, "the cost is not larger than what is done"
