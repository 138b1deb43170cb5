"""Memory that a pass hands back stays with the process, so that the next pass does not fetch it from the kernel again.

By default the C library returns large blocks to the kernel when they are freed, depending on what else lies in its
heap, and every page that comes back costs a fault. On a CPU that can slow one and the same model in one process and
not in the next, for one r and not for another. It is no property of the model, no repetition within a process shows
it, and a comparison of two runs would call it a regression.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_NEVER = -1
_kept = False


def keep_memory() -> bool:
    """From now on free memory stays with this process, where its allocator is glibc's: as :func:`sweep` times models.

    Returns:
        Whether it does; False on other systems, where nothing changes.
    """
    global _kept
    replaced = re.search("jemalloc|tcmalloc|mimalloc", os.environ.get("LD_PRELOAD", ""))
    if not _kept and not replaced and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        _kept = bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
    return _kept


def describe_memory() -> str:
    """``kept`` or ``default``, for the testbed: speeds of one are not those of the other."""
    return "kept" if _kept else "default"
