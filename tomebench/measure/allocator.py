"""Keep freed memory in the process (glibc malloc), so that a pass does not pay again for page faults.

By default the C library returns large blocks to the kernel when they are freed, depending on what else lies in its
heap, and every page that comes back costs a fault. On a CPU that can slow down a model in one process and not in the
next, at one r and not at another. It is no property of the model, repetition within one process does not show it, and a
comparison of two runs would report it as a regression.
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
    """Make glibc's allocator keep freed memory from now on, as :func:`sweep` does before it times models.

    Returns:
        True where the allocator is glibc's; False on other systems, where nothing changes.
    """
    global _kept
    replaced = re.search("jemalloc|tcmalloc|mimalloc", os.environ.get("LD_PRELOAD", ""))
    if not _kept and not replaced and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        _kept = bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
    return _kept


def describe_memory() -> str:
    """``kept`` or ``default``, for the testbed: speeds under one cannot be compared with those under the other."""
    return "kept" if _kept else "default"
