"""Digests that identify a model: of its tensors, and of its layers' settings and code."""

from __future__ import annotations

import argparse
import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import nn

_LIBRARIES = frozenset({"torch", "timm", "transformers", "tomebench", "numpy"}) | sys.stdlib_module_names
"""Packages identified by version or code digest, whose code need not be read here."""
_BAGS = (types.SimpleNamespace, argparse.Namespace)
_OF_MODULES = frozenset(dir(nn.Module)) | frozenset(vars(nn.Module()))
"""Attributes that every ``nn.Module`` has (parts, hooks, compiler state): no settings of a layer."""
_PUBLISHED = frozenset({"pretrained_cfg", "default_cfg", "_output_capturing_hooks_installed", "name_or_path"})
"""No part of the computation: timm's description of published weights (preprocessing is recorded apart); from
where transformers loaded it, and whether it has been asked for states."""
_DEEPEST = 12
"""Depth of nested containers up to which settings are read."""
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")


def tensors_digest(model: nn.Module, *, without: Sequence[str] = ()) -> str:
    """sha256 of the names and values of all parameters and buffers, unsaved ones included: 16 hex digits.

    Args:
        model: whose tensors.
        without: parts of names of tensors that are left out.
    """
    found = hashlib.sha256()
    for name, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        if any(part in name for part in without):
            continue
        found.update(name.encode())
        found.update(_bytes(value))
    return found.hexdigest()[:16]


def layers_digest(model: nn.Module) -> str:
    """sha256 of a model's layers, their settings and the caller's own code in them: 16 hex digits.

    Two models with the same tensors may differ in pooling, in the number of attention heads, or in an edited class of
    the caller.
    """
    reader = _Reader()
    found = hashlib.sha256(repr(model).encode())
    for name, layer in model.named_modules():
        settings = {key: value for key, value in vars(layer).items() if key not in _OF_MODULES | _PUBLISHED}
        found.update(f"{name} {reader.said(settings)}\n".encode())
    for kind in dict.fromkeys(type(layer) for layer in model.modules()):
        found.update("".join(reader.class_code(kind)).encode())
    return found.hexdigest()[:16]


class _Reader:
    """Writes settings and code as text that is the same in every process; each function and class once."""

    def __init__(self) -> None:
        self._read: set[int] = set()

    def said(self, value: Any, depth: int = 0) -> str:
        """A setting as text; of an object without a lasting text form, such as an open file, its class."""
        if value is None or isinstance(value, str | bytes | int | float | complex | torch.dtype | torch.device):
            return repr(value)
        if isinstance(value, enum.Enum | PurePath):
            return f"{_name(type(value))} {value}"
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if isinstance(value, nn.Module):  # modules that are parts of the model are read in their own turn
            return _name(type(value))
        if depth > _DEEPEST:
            return "..."
        deeper = functools.partial(self.said, depth=depth + 1)
        if isinstance(value, Mapping):
            return f"{{{', '.join(sorted(f'{deeper(key)}: {deeper(each)}' for key, each in value.items()))}}}"
        if isinstance(value, tuple | list):
            return f"({', '.join(map(deeper, value))})"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(map(deeper, value)))}}}"
        if isinstance(value, functools.partial):
            return f"partial {deeper((value.func, value.args, value.keywords))}"
        if isinstance(value, types.MethodType):
            return deeper(value.__func__)
        if isinstance(value, types.FunctionType):
            return f"{_name(value)} {''.join(self._function_code(value, depth))}"
        if isinstance(value, type):
            return f"{_name(value)} {''.join(self.class_code(value, depth))}"
        if callable(value):
            return _name(value if hasattr(value, "__qualname__") else type(value))
        if isinstance(value, _BAGS) or (not _is_library(type(value)) and hasattr(value, "__dict__")):
            return f"{_name(type(value))} {deeper(vars(value))}"
        return _name(type(value))

    def class_code(self, kind: type, depth: int = 0) -> Iterator[str]:
        """Code and settings of a class and its base classes, except those of libraries."""
        for each in kind.__mro__:
            if _is_library(each) or id(each) in self._read:
                continue
            self._read.add(id(each))
            for name, value in sorted(vars(each).items()):
                if name in ("__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"):
                    continue
                inside = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                yield f"{_name(each)}.{name} {self.said(inside, depth + 1)}\n"

    def _function_code(self, function: types.FunctionType, depth: int) -> Iterator[str]:
        """Code of a caller's function, with its defaults, closure values and the globals that it names."""
        if _is_library(function) or id(function) in self._read:
            return
        self._read.add(id(function))
        yield self._code(function.__code__)
        yield self.said((function.__defaults__, function.__kwdefaults__), depth + 1)
        for cell in function.__closure__ or ():
            try:
                yield self.said(cell.cell_contents, depth + 1)
            except ValueError:  # not filled yet
                continue
        globals_, attributes = _names(function.__code__)
        for name in sorted(globals_ & function.__globals__.keys()):
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType):  # the function may call any attribute whose name it contains
                inside = [] if _is_library(value) else sorted(attributes & vars(value).keys())
                yield f"{name}={value.__name__} {[self.said(vars(value)[each], depth + 1) for each in inside]}"
            else:
                yield f"{name}={self.said(value, depth + 1)}"

    def _code(self, code: types.CodeType) -> str:
        consts = [self._code(each) if isinstance(each, types.CodeType) else self.said(each) for each in code.co_consts]
        return f"{code.co_code.hex()} {code.co_names} {consts}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()  # numpy has no bfloat16


def _tensor(tensor: torch.Tensor) -> str:
    kind = f"{tensor.dtype} {tensor.layout} {[*tensor.shape]}"
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        return kind
    return f"{kind} {hashlib.sha256(_bytes(tensor)).hexdigest()}"


def _name(value: Any) -> str:
    """Qualified name of a class or function; of the caller's own without its module, which may be ``__main__``."""
    name = str(getattr(value, "__qualname__", type(value).__qualname__))
    return f"{value.__module__}.{name}" if _is_library(value) else name


def _is_library(value: Any) -> bool:
    where = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return str(where).partition(".")[0] in _LIBRARIES


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """(Global names that some code loads, all other names in it, which are attributes)."""
    loaded = {each.argval for each in dis.get_instructions(code) if each.opname in _GLOBALS}
    others = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            inner, more = _names(const)
            loaded, others = loaded | inner, others | more
    return loaded, others
