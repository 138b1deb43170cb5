"""The public way to wrap a model: what r, schedule and inflection mean, and how mistakes are answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tomebench.backbones.apply import apply
from tomebench.errors import SpecError, UnsupportedModelError


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    """197 tokens and 12 blocks, without storage."""
    with torch.device("meta"):
        return VisionTransformer(embed_dim=24, num_heads=2)


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ({"r": 8}, list(range(189, 100, -8))),
        ({"r": 0}, [197] * 12),
        ({"r": [8] * 12}, list(range(189, 100, -8))),
        ({"r": (8,) * 6 + (0,) * 6}, [189, 181, 173, 165, 157, 149] + [149] * 6),
        ({"r": np.int64(8)}, list(range(189, 100, -8))),
        ({"r": np.full(12, 8)}, list(range(189, 100, -8))),
        ({"r": 8, "schedule": "decreasing"}, [181, 167, 154, 143, 133, 125, 118, 113, 109, 107, 106, 106]),
        ({"r": 8, "inflect": -1}, [181, 167, 154, 143, 133, 125, 118, 113, 109, 107, 106, 106]),
        ({"r": 8, "inflect": -0.5}, [185, 174, 164, 155, 146, 138, 131, 125, 119, 114, 110, 106]),
        ({"r": 8, "inflect": 0.0}, list(range(189, 100, -8))),
        ({"r": 8, "schedule": "increasing"}, [197, 196, 194, 190, 185, 178, 170, 160, 149, 136, 122, 106]),
        ({"r": [98] + [0] * 11}, [99] * 12),
        ({"r": 16}, [181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]),
        ({"r": 4096}, [99, 50, 26, 14, 8, 5, 3, 2, 2, 2, 2, 2]),
    ],
)
def test_token_counts(model: VisionTransformer, arguments: dict[str, Any], counts: list[int]) -> None:
    merged = apply(model, **arguments)
    assert merged.token_counts == counts
    assert all(type(count) is int for count in merged.token_counts)
    assert isinstance(merged, nn.Module)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"r": -1}, "negative"),
        ({"r": [8] * 11}, "11 values but the model has 12 blocks"),
        ({"r": []}, "one r >= 0 for every layer"),
        ({"r": [8] * 11 + [-1]}, "one r >= 0 for every layer"),
        ({"r": [8] * 12, "schedule": "decreasing"}, "schedule of its own"),
        ({"r": [8] * 12, "inflect": 0.5}, "schedule of its own"),
        ({"r": 8, "schedule": "increasing", "inflect": 0.5}, "contradict"),
        ({"r": 8, "schedule": "falling"}, "cannot be read"),
        ({"r": 8, "inflect": 2.0}, "outside"),
        ({"r": [1, 2]}, "2 values but the model has 12 blocks"),
        ({"r": 8, "schedule": "list:8,8"}, "give the list itself as r"),
        ({"r": 8, "method": "tme"}, "did you mean 'tome'"),
        ({"r": 8.0}, "r is"),
        ({"r": 8.5}, "r is"),
        ({"r": "8"}, "r is"),
        ({"r": "0..24"}, "r is"),
        ({"r": None}, "r is"),
        ({"r": [8.5] * 12}, "r is"),
        ({"r": ["8"] * 12}, "r is"),
    ],
)
def test_mistakes_are_answered_in_one_line(model: VisionTransformer, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        apply(model, **arguments)
    assert "\n" not in str(caught.value)


def test_another_model_is_refused_before_anything_else() -> None:
    with pytest.raises(UnsupportedModelError):
        apply(nn.Linear(2, 2), -1)


def test_proportional_attention_is_on_unless_turned_off(model: VisionTransformer) -> None:
    assert apply(model, 8).prop_attn
    assert not apply(model, 8, prop_attn=False).prop_attn
