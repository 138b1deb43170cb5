"""Digests that tell one model from another, also where the caller's own code makes the difference."""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Callable
from pathlib import Path
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
        return helpers.halved(helper(self.act(self.fc(x)))) * scale * self.share

    @property
    def share(self):
        return {"a": 0.5, "b": 1.0}["a"] if "c" in {"c", "d", "e"} else 1.0
"""


def helpers(halved: str) -> types.ModuleType:
    """A file of helpers."""
    module = types.ModuleType("helpers")
    exec(f"def halved(x):\n    return {halved}\n\ndef doubled(x):\n    return 2 * x", vars(module))
    return module


def mine(source: str = MLP, act: Callable[..., Any] = F.gelu, name: str = "__main__", **more: Any) -> nn.Module:
    """A layer of a class that is written as in a notebook."""
    scope: dict[str, Any] = {"nn": nn, "__name__": name, "helpers": helpers("x / 2"), **more}
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
        ("helpers.halved(", "helpers.doubled("),
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
    ("one", "other"),
    [
        ((1, 2), (1, 3)),
        (None, 1),
        (torch.zeros(2), torch.ones(2)),
        ({1}, {2}),
        ([F.gelu], [F.relu]),
        ({"scale": 1}, {"scale": 2}),
        (types.SimpleNamespace(scale=1), types.SimpleNamespace(scale=2)),
        ({"a": [types.SimpleNamespace(scale=1.0)]}, {"a": [types.SimpleNamespace(scale=0.5)]}),
        (Path("a"), Path("b")),
        (torch.float32, torch.float16),
    ],
)
def test_another_setting_of_a_layer_is_another_layer(one: object, other: object) -> None:
    layers = [mine(), mine()]
    for layer, value in zip(layers, (one, other), strict=True):
        layer[0].mine = value  # type: ignore[index]
    assert layers_digest(layers[0]) != layers_digest(layers[1])


def test_helpers_are_read_through_their_module() -> None:
    assert layers_digest(mine(helpers=helpers("x / 2"))) == layers_digest(mine())
    assert layers_digest(mine(helpers=helpers("x / 3"))) != layers_digest(mine())


def made_alike(factor: int) -> type[nn.Module]:
    class Act(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * factor

    return Act


def test_what_says_nothing_about_a_model_is_in_no_digest() -> None:
    """The file of a class, globals of the names of attributes, a compiled form, the order of classes in memory."""
    plain = layers_digest(mine())
    assert layers_digest(mine(name="layers")) == plain
    assert layers_digest(mine(share=object())) == plain
    compiled = mine()
    compiled.compile()
    assert layers_digest(compiled) == plain
    kinds = [made_alike(factor) for factor in range(8)]
    digests = {layers_digest(nn.Sequential(*(kind() for kind in kinds))) for _ in range(3)}
    kinds = [made_alike(factor) for factor in range(8)]
    assert {layers_digest(nn.Sequential(*(kind() for kind in kinds)))} == digests
    kinds = [made_alike(factor) for factor in (*range(7), 9)]
    assert {layers_digest(nn.Sequential(*(kind() for kind in kinds)))} != digests


def test_odd_attributes_are_no_bug() -> None:
    around: list[object] = []
    around.append(around)
    odd = (around, torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), object(), logging.getLogger())
    for value in odd:
        layer = mine()
        layer[0].odd = value  # type: ignore[index]
        assert layers_digest(layer) == layers_digest(layer)


def test_a_buffer_that_is_not_saved_is_a_tensor_of_the_model() -> None:
    layers = [mine(), mine()]
    for number, layer in enumerate(layers):
        layer.register_buffer("shift", torch.full((2,), float(number)), persistent=False)
    assert tensors_digest(layers[0]) != tensors_digest(layers[1])
