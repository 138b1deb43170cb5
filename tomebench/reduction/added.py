"""Methods that other installed packages add by an entry point, and the digest of their code."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

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
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted((Path(folder), path) for folder in folders for path in Path(folder).rglob("*.py"))
    if spec is not None and not folders and spec.origin is not None:
        files = [(Path(spec.origin).parent, Path(spec.origin))]
    found = hashlib.sha256()
    for folder, path in files:
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]
