"""Optional libraries: whether one is installed."""

from __future__ import annotations

import importlib.util


def is_installed(name: str) -> bool:
    """Whether a library can be imported; a folder of its name in the working directory does not count."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None
