"""Limits of the surroundings that look like bugs: an import, or an allocation, that fails for want of memory."""

from __future__ import annotations

import re

_MEMORY = re.compile(r"alloc|memory|map segment|failed to map", re.IGNORECASE)


def limit_behind(error: BaseException) -> str | None:
    """The limit that an error comes from, with what to do; None if it is none of these.

    Args:
        error: what was raised. Under a limit of the address space, as ``ulimit -v`` and batch systems set it, a
            library cannot be loaded, or Python itself loses what went wrong.
    """
    try:
        import resource
    except ImportError:  # no Unix
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    lost = isinstance(error, SystemError | MemoryError) or (
        isinstance(error, ImportError | OSError | RuntimeError) and _MEMORY.search(str(error)) is not None
    )
    if not lost:
        return None
    return (
        f"the address space of this process is limited to {limit >> 20} MiB (ulimit -v), which is too little for what "
        f"PyTorch loads and computes ({type(error).__name__}); raise the limit, to 8 GiB at least"
    )
