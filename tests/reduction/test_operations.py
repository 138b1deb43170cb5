"""How many operations merging takes: at batch size 1 they, and not what they compute, are what a pass waits for."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tomebench.backbones.apply import apply

DEPTH = 3


class Dispatched(TorchDispatchMode):
    """Counts what reaches PyTorch's dispatcher, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def vit(heads: int) -> nn.Module:
    """Blocks as those of DeiT-Ti (3 heads) or ViT-B (12) on 197 tokens: fewer of them, and with narrow MLPs.

    How wide they are is the same operations.
    """
    shape = {"embed_dim": 64 * heads, "num_heads": heads, "depth": DEPTH, "mlp_ratio": 0.25}
    return VisionTransformer(img_size=224, patch_size=16, num_classes=5, **shape).eval()


def dispatched(model: nn.Module, batch: int, dtype: torch.dtype, *, inference: bool) -> Counter[str]:
    """Of the second pass: constants are there."""
    images = torch.zeros(batch, 3, 224, 224, dtype=dtype)
    with torch.inference_mode() if inference else torch.no_grad():
        model(images)
        with Dispatched() as seen:
            model(images)
    return seen.names


def test_dispatched_sees_one_operation_more() -> None:
    class More(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    few = dispatched(nn.Identity(), 1, torch.float32, inference=True)
    assert dispatched(More(), 1, torch.float32, inference=True) - few == {"add": 1}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    ("heads", "batch", "dtype", "most"),
    [
        (3, 1, torch.float32, 50),
        (12, 1, torch.float32, 50),
        (3, 8, torch.float32, 50),
        (12, 8, torch.float32, 50),
        (3, 1, torch.bfloat16, 60),
    ],
)
def test_a_block_that_merges_takes_few_operations_more(
    heads: int, batch: int, dtype: torch.dtype, most: int, inference: bool
) -> None:
    model = vit(heads).to(dtype)
    plain, merged = (dispatched(apply(model, r), batch, dtype, inference=inference) for r in (0, 8))
    more = merged - plain
    print(f"{more.total() / DEPTH:.1f} more in a block: {dict(more.most_common())}")
    assert more.total() / DEPTH <= most


@pytest.mark.parametrize("partition", ["alternating", "sequential", "random"])
def test_constants_are_made_once_and_owned_by_the_model(partition: str) -> None:
    model = vit(3)
    merged, other = apply(model, 8, partition=partition), apply(model, 8)
    made = dispatched(merged, 2, torch.float32, inference=True)
    assert not made.keys() & {"arange", "tensor", "lift_fresh", "scalar_tensor"}
    kept = dict(merged.constants._kept)
    assert kept
    merged(torch.zeros(2, 3, 224, 224))
    assert merged.constants._kept.keys() == kept.keys()
    assert all(merged.constants._kept[key] is value for key, value in kept.items())
    assert not other.constants._kept


def test_a_copy_makes_its_own_constants() -> None:
    """On another device it could not use those of the first."""
    merged, images = apply(vit(3), 8), torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        logits = merged(images)
        for other in (copy.deepcopy(merged), pickle.loads(pickle.dumps(merged))):
            assert not other.constants._kept
            assert torch.equal(other(images), logits)
