"""tomebench: what token merging does to the speed and accuracy of a Vision Transformer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["TomebenchError", "__version__", "advise", "apply", "check", "keep_memory", "load_results", "sweep"]

if TYPE_CHECKING:
    from tomebench.api import advise, apply, check, keep_memory, load_results, sweep
    from tomebench.errors import TomebenchError


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import tomebench`` costs nothing."""
    if name in __all__:
        return getattr(import_module("tomebench.errors" if name == "TomebenchError" else "tomebench.api"), name)
    raise AttributeError(f"module 'tomebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what can be asked for, loaded or not."""
    return sorted({*globals(), *__all__})
