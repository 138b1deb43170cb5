"""Number of usable CPUs: the affinity mask of the process, cut to the quota of its Linux control group."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_PAIR = re.compile(r"(\d+)\s+(\d+)")


def usable_cpus(root: Path = _ROOT, own: Path = _OWN) -> float:
    """CPUs that this process may use: its affinity mask, cut to the quotas of its control group and parents.

    Both cgroup v2 and v1 are read. A quota of one and a half CPUs gives 1.5. Always > 0.

    Args:
        root: where control groups are mounted.
        own: file that names the control group of this process.
    """
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min([allowed, *_quotas(root, read(own))])


def read(path: Path) -> str:
    """Text of a small file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _quotas(root: Path, own: str) -> Iterator[float]:
    match = re.search(r"^0::/(.*)$", own, re.MULTILINE)
    for folder in _upwards(root / (match[1] if match else ""), root):
        yield from _cpus(read(folder / "cpu.max"))
    for controllers, group in re.findall(r"^\d+:([^:\n]*):/(.*)$", own, re.MULTILINE):
        if "cpu" in controllers.split(","):
            for mount in dict.fromkeys((root / controllers, root / "cpu")):
                for folder in _upwards(mount / group, mount):
                    limit, period = (read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
                    yield from _cpus(f"{limit} {period}")


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    """A control group and its parents; in a container the group's path may exist on the host only."""
    for each in (folder, *folder.parents):
        yield each
        if each == top:
            return


def _cpus(text: str) -> Iterator[float]:
    """CPUs of ``QUOTA PERIOD`` in microseconds; nothing for ``max``, -1 and what cannot be read."""
    found = _PAIR.fullmatch(text.strip())
    if found and int(found[1]) > 0 and int(found[2]) > 0:
        yield int(found[1]) / int(found[2])
