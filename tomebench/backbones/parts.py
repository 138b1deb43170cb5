"""Checks and counts that adapters of timm's models share: unknown parts, hooks, weights that no count knows, MACs.

Every attribute of every part is checked against a list; a model with an unknown one is refused rather than run
without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tomebench.errors import UnsupportedModelError

_RECORDS = "transformers.utils.output_capturing"
"""Module of the hooks that only record."""


def refuse_hooks(module: nn.Module) -> None:
    """Raise if a module whose ``forward`` the adapter bypasses has a forward hook, which would not run.

    Those by which transformers records states that are asked for stay after the first time; they change nothing.
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if any(getattr(hook, "__module__", "") != _RECORDS for hook in hooks):
        raise refusal(f"{type(module).__name__} has a forward hook")


def refuse_uncounted(module: nn.Module, where: str) -> None:
    """Raise if a part has weight matrices outside of linear layers, which the count of MACs would miss.

    Tables of biases by relative position are looked up, and multiplied with nothing.
    """
    for part in module.modules():
        own = "weight" if isinstance(part, nn.Linear) else "relative_position_bias_table"
        if any(weight.ndim > 1 for name, weight in part.named_parameters(recurse=False) if name != own):
            raise refusal(f"{type(part).__name__} in {where} has weights besides those of nn.Linear")


def refusal(what: str) -> UnsupportedModelError:
    """The error for a model with a part that no adapter runs."""
    return UnsupportedModelError(
        f"{what}, which token merging does not know how to run; tomebench list models --all says which models it does"
    )


def replaced_methods(module: nn.Module) -> list[str]:
    """Names of methods of the class that the instance has replaced."""
    return [name for name in vars(module) if callable(getattr(type(module), name, None))]


def parts_of(module: nn.Module, *, plain: bool = False) -> list[str]:
    """Names of the direct sub-modules, parameters and buffers, and with ``plain`` of the other public attributes."""
    names = [name for name, _ in module.named_children()]
    names += [name for name, _ in module.named_parameters(recurse=False)]
    names += [name for name, _ in module.named_buffers(recurse=False)]
    if plain:
        names += [name for name in vars(module) if not name.startswith("_") and name != "training"]
    return names


def first_unknown(names: Iterable[str], known: set[str]) -> str | None:
    """The first of these names that is not among those that are known."""
    return next((name for name in names if name not in known), None)


def linear_macs(module: nn.Module) -> int:
    """Number of weights in all linear layers of a module: its MACs for one token."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def embedding_macs(model: Any) -> int:
    """MACs of the patch embedding, from the shapes one empty image takes through it (convolutional stems included)."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += module.weight.numel() * output.shape[-2] * output.shape[-1]

    embed = model.patch_embed
    hooks = [m.register_forward_hook(count) for m in embed.modules() if isinstance(m, nn.Conv2d)]
    # On meta tensors: nothing is computed, and a batch norm in the stem keeps its running averages.
    tensors = {name: t.to("meta") for name, t in [*embed.named_parameters(), *embed.named_buffers()]}
    try:
        dtype = next(embed.parameters()).dtype
        image = torch.zeros(1, model.in_chans, *embed.img_size, dtype=dtype, device="meta")
        torch.func.functional_call(embed, tensors, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return total
