"""Digests that tell one model from another, also where the caller's own code makes the difference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from tomebench.models.digest import layers_digest, tensors_digest

MLP = """
FACTOR = 2.0

def helper(x):
    return x * FACTOR

class Mine(nn.Module):
    power = 1

    def __init__(self, act):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = act

    def forward(self, x, scale=1.0):
        return helper(self.act(self.fc(x))) * scale * self.share

    @property
    def share(self):
        return {"a": 0.5, "b": 1.0}["a"] if "c" in {"c", "d", "e"} else 1.0
"""


def mine(source: str = MLP, act: Callable[..., Any] = F.gelu) -> nn.Module:
    """A layer of a class that is written as in a notebook."""
    scope: dict[str, Any] = {"nn": nn, "__name__": "__main__"}
    exec(source, scope)
    torch.manual_seed(0)
    return nn.Sequential(scope["Mine"](act))


def scaled(by: float) -> Callable[..., Any]:
    return lambda x: x * by


def test_the_same_model_has_the_same_digests() -> None:
    assert layers_digest(mine()) == layers_digest(mine())
    assert tensors_digest(mine()) == tensors_digest(mine())
    assert layers_digest(mine(act=scaled(2))) == layers_digest(mine(act=scaled(2)))
    one, other = (timm.create_model("test_vit", num_classes=3) for _ in range(2))
    assert layers_digest(one) == layers_digest(other)
    other(torch.zeros(1, 3, 160, 160))
    assert layers_digest(one) == layers_digest(other.train().eval())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* scale", "+ scale"),
        ("scale=1.0", "scale=0.5"),
        ("x * FACTOR", "x / FACTOR"),
        ("FACTOR = 2.0", "FACTOR = 3.0"),
        ("power = 1", "power = 2"),
        ('{"a": 0.5', '{"a": 0.25'),
    ],
)
def test_an_edited_class_is_another_one(old: str, new: str) -> None:
    assert old in MLP
    assert layers_digest(mine()) != layers_digest(mine(MLP.replace(old, new)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (F.gelu, F.relu),
        (scaled(2), scaled(3)),
        (functools.partial(F.gelu, approximate="tanh"), F.gelu),
        (functools.partial(scaled(2)), functools.partial(scaled(3))),
    ],
)
def test_another_function_of_a_layer_is_another_layer(one: Callable[..., Any], other: Callable[..., Any]) -> None:
    assert layers_digest(mine(act=one)) != layers_digest(mine(act=other))


@pytest.mark.parametrize(
    ("one", "other"), [((1, 2), (1, 3)), (None, 1), (torch.zeros(2), torch.ones(2)), ({1}, {2}), ([F.gelu], [F.relu])]
)
def test_another_setting_of_a_layer_is_another_layer(one: object, other: object) -> None:
    layers = [mine(), mine()]
    for layer, value in zip(layers, (one, other), strict=True):
        layer[0].mine = value  # type: ignore[index]
    assert layers_digest(layers[0]) != layers_digest(layers[1])


def test_a_buffer_that_is_not_saved_is_a_tensor_of_the_model() -> None:
    layers = [mine(), mine()]
    for number, layer in enumerate(layers):
        layer.register_buffer("shift", torch.full((2,), float(number)), persistent=False)
    assert tensors_digest(layers[0]) != tensors_digest(layers[1])
