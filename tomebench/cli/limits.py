"""Recognise errors that come from a limit on the address space (``ulimit -v``): failed imports and allocations."""

from __future__ import annotations

import re

_MEMORY = re.compile(r"alloc|memory|map segment|failed to map", re.IGNORECASE)


def limit_behind(error: BaseException) -> str | None:
    """Error text, with what to do, if an exception comes from a limit on the address space; else None.

    Args:
        error: the exception. Under such a limit, set by ``ulimit -v`` or a batch system, libraries cannot be loaded, or
            Python raises SystemError instead of the cause.
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
