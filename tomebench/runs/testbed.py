"""Stored testbeds (the machine and libraries that speeds were measured on), as one hash and as one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tomebench import schema
from tomebench.words import counted

UNAVAILABLE = "unavailable"
"""Value of a fact that cannot be found out about a machine."""
PROCESS = "process"
"""Name of the fact that identifies a process: two sessions of one process are not two processes."""


def fingerprint(testbed: Mapping[str, Any]) -> str:
    """Sixteen hex digits over a testbed: speeds may be compared where they are equal.

    Left out are the git state, which comparisons are made for; what throttles at one moment; the id of the process; and
    how many processes evaluate images, since only one times. Unknown facts are left out too, so that a younger field
    makes no difference where it is unavailable.
    """
    passing = ("git", "gpu_throttle_reasons", "processes", PROCESS)
    known = {key: value for key, value in testbed.items() if key not in passing and value != UNAVAILABLE}
    return schema.fingerprint(known)


def one_line(testbed: Mapping[str, Any]) -> str:
    """A testbed in one line, for a table's conditions."""
    cpus = testbed["usable_cpus"]
    parts = [
        str(testbed["device_name"]),
        f"{counted(testbed['threads'], 'thread')} on {counted(cpus, 'CPU')}",
        *(f"{library} {testbed[library]}" for library in ("torch", "timm")),
        f"Python {testbed['python']}",
    ]
    if testbed["driver"] != UNAVAILABLE:
        parts.insert(1, f"driver {testbed['driver']}")
    if testbed.get("overrides", "none") not in ("none", UNAVAILABLE):
        parts.append(str(testbed["overrides"]))
    return ", ".join(parts)
