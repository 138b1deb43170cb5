"""Every architecture of timm that is accepted and can be built at a depth of two: r = 0, r = 8, and source maps."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import timm
import torch
from backbones.zoo import prepare
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.cli.architectures import architectures
from tomebench.reduction.plan import merge
from tomebench.reduction.tokens import Tokens

BUILT = 298
"""Architectures of timm 1.0.31 that are accepted and take a depth of two."""


NARROW = {"embed_dim": 192, "num_heads": 3}
SIZES: tuple[dict[str, Any], ...] = ({"img_size": 128}, {"img_size": 112}, {"img_size": 224}, {})


def build(name: str) -> nn.Module | None:
    """An architecture with two blocks and random parameters, on small images and narrow where it can be; else None."""
    for more in (*({**NARROW, **size} for size in SIZES), *SIZES):
        with contextlib.suppress(TypeError, AssertionError, ValueError, RuntimeError):
            model: Any = timm.create_model(name, depth=2, num_classes=7, **more)
            adapt(model)
            with torch.no_grad():
                model.eval()(torch.zeros(1, model.in_chans, *size_of(model)))
            return prepare(model, seed=1)
    return None


def size_of(model: Any) -> tuple[int, int]:
    """Height and width of the model's images."""
    if hasattr(model, "patch_embed"):
        return tuple(model.patch_embed.img_size)
    return tuple(model.embeds.default_img_size or model.pretrained_cfg["input_size"][-2:])


def images_of(model: Any, dtype: torch.dtype) -> Tensor:
    """Two images of the model's own size."""
    return torch.randn(2, model.in_chans, *size_of(model), generator=torch.Generator().manual_seed(0)).to(dtype)


def check_sources(model: nn.Module, images: Tensor, r: int) -> None:
    """Tokens that block 1 merges are means of those before it, by the source map."""
    backbone = adapt(model)
    reduced = apply(model, [r, *[0] * (backbone.depth - 1)])
    seen: dict[str, Tensor] = {}
    reduced.merge = lambda plan, tokens: Tokens(  # type: ignore[method-assign]
        *(
            seen.setdefault(name, each)
            for name, each in zip(("x", "size"), merge(plan, tokens.x, tokens.size), strict=True)
        ),
        tokens.position and tokens.position.after(plan, tokens.size, "keep"),
    )
    source = reduced.source_map(images)
    x, _ = backbone.attention(0, backbone.embed(images), "auto")
    count = torch.zeros(source.shape[0], seen["x"].shape[1], dtype=x.dtype).scatter_add_(
        1, source, torch.ones_like(source, dtype=x.dtype)
    )
    total = torch.zeros_like(seen["x"]).scatter_add_(1, source[..., None].expand_as(x), x)
    torch.testing.assert_close(seen["size"].to(x.dtype), count, rtol=0, atol=0)
    torch.testing.assert_close(seen["x"], total / count[..., None], rtol=1e-4, atol=1e-4 * float(x.abs().max()))


@pytest.mark.slow
def test_every_accepted_architecture_is_itself_at_r_0() -> None:
    built, wrong = 0, []
    for name in (each.name for each in architectures() if not each.why):
        model: Any = build(name)
        if model is None:
            continue
        built += 1
        with torch.no_grad():
            for dtype in (torch.float32, torch.bfloat16):
                images = images_of(model.to(dtype), dtype)
                expected = model(images)
                if not torch.equal(apply(model, 0)(images), expected):
                    wrong.append(f"{name} {dtype}: r = 0 is another model")
                if torch.equal(apply(model, 8)(images), expected):
                    wrong.append(f"{name} {dtype}: r = 8 changes nothing")
            check_sources(prepare(model.float(), seed=1), images_of(model, torch.float32), 8)
        print(built, name, flush=True)
    assert wrong == []
    assert built == BUILT
