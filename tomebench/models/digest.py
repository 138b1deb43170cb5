"""What tells one model from another: digests of its tensors and of what its layers do with them."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

_LIBRARIES = ("torch", "timm", "tomebench", "builtins", "functools", "numpy")
"""Packages whose versions, or digest, say what their code does."""


def tensors_digest(model: nn.Module) -> str:
    """Sixteen hex digits of all parameters and buffers, those that are not saved included, by name."""
    found = hashlib.sha256()
    for name, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        found.update(name.encode())
        found.update(_bytes(value))
    return found.hexdigest()[:16]


def layers_digest(model: nn.Module) -> str:
    """Sixteen hex digits of a model's layers, their settings and their own code, which no tensor says.

    Of two models with the same tensors one may take the class token and the other the mean, have other heads, or a
    class of the caller's in an edited form.
    """
    found = hashlib.sha256(repr(model).encode())
    seen: set[int] = set()
    for name, layer in model.named_modules():
        settings = {key: said for key, value in vars(layer).items() if (said := _said(value, seen)) is not None}
        settings.pop("training", None)
        found.update(f"{name} {sorted(settings.items())}\n".encode())
    for kind in sorted({type(layer) for layer in model.modules()}, key=_name):
        found.update("".join(_class_code(kind, seen)).encode())
    return found.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()  # numpy has no bfloat16


def _said(value: Any, seen: set[int]) -> str | None:
    """A setting as text that two processes give alike; None of what is no setting."""
    if value is None or isinstance(value, str | bytes | int | float | complex | torch.dtype | torch.device):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {[*value.shape]} {hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, tuple | list):
        return f"({', '.join(_said(each, seen) or _name(type(each)) for each in value)})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_said(each, seen) or _name(type(each)) for each in value))}}}"
    if isinstance(value, functools.partial):
        return f"partial {_said((value.func, value.args, [*value.keywords.items()]), seen)}"
    if isinstance(value, types.MethodType):
        return _said(value.__func__, seen)
    if isinstance(value, type):
        return _name(value)
    if isinstance(value, types.FunctionType):
        return f"{_name(value)} {''.join(_function_code(value, seen))}"
    return _name(value) if callable(value) and not isinstance(value, nn.Module | Mapping) else None


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _is_library(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in _LIBRARIES


def _class_code(kind: type, seen: set[int]) -> Iterator[str]:
    """Code and settings of a class and of those that it is made of, but for those of libraries."""
    for each in kind.__mro__:
        if _is_library(each):
            continue
        for name, value in sorted(vars(each).items()):
            if name in ("__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"):
                continue
            inside = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            yield f"{_name(each)}.{name} {_said(inside, seen)}\n"


def _function_code(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    """Code of a function of the caller's, with the values that it closes over and the globals that it names."""
    if _is_library(function) or id(function) in seen:
        return
    seen.add(id(function))
    yield _code(function.__code__)
    yield str(_said((function.__defaults__, [*(function.__kwdefaults__ or {}).items()]), seen))
    for cell in function.__closure__ or ():
        try:
            yield str(_said(cell.cell_contents, seen))
        except ValueError:  # not filled yet
            continue
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield f"{name}={_said(function.__globals__[name], seen)}"


def _names(code: types.CodeType) -> list[str]:
    inside = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return sorted({*code.co_names, *inside})


def _code(code: types.CodeType) -> str:
    consts = [_code(each) if isinstance(each, types.CodeType) else str(_said(each, set())) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"
