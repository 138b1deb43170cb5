"""Methods that other installed packages add by an entry point, and the digest of their code."""

from __future__ import annotations

import functools
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tomebench.identity import UNKNOWN, source_digest

GROUP = "tomebench.methods"
"""Group of the entry points: ``name = "module:class"``."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


class AddedMethod(NamedTuple):
    """A method that an installed package adds."""

    name: str
    target: str  # "module:class"
    package: str  # name and version


@functools.cache
def added_methods() -> tuple[AddedMethod, ...]:
    """The methods of all installed packages, sorted, without those whose name no flag could take; imports nothing."""
    found = {
        AddedMethod(entry.name, entry.value, f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package")
        for entry in metadata.entry_points(group=GROUP)
        if _NAME.fullmatch(entry.name)
    }
    return tuple(sorted(found))


def code_of(target: str) -> str:
    """Digest of all Python files of the package or module that a method is in, 16 hex digits.

    Args:
        target: "module:class".
    """
    name = target.partition(":")[0].partition(".")[0]
    spec = getattr(sys.modules.get(name), "__spec__", None) or find_spec(name)
    if spec is None or spec.origin is None:
        return UNKNOWN
    origin = Path(spec.origin)
    return source_digest(origin.parent, origin.parent.rglob("*.py") if spec.submodule_search_locations else [origin])
