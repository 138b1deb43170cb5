"""Stored testbeds: what speeds were measured on, as one hash and as one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tomebench import schema
from tomebench.words import counted

UNAVAILABLE = "unavailable"
"""What cannot be found out about a machine."""
PROCESS = "process"
"""Name of the fact that tells one process from another: two sessions of one are no two processes."""


def fingerprint(testbed: Mapping[str, Any]) -> str:
    """Sixteen hex digits over a description: equal means that speeds may be compared.

    Neither the git state counts, which comparisons are made for, nor what throttles at one moment, nor which process it
    was and how many evaluate images when one has done the timing. What is unknown is left out, so that a younger field
    changes nothing where it cannot be told.
    """
    passing = ("git", "gpu_throttle_reasons", "processes", PROCESS)
    known = {key: value for key, value in testbed.items() if key not in passing and value != UNAVAILABLE}
    return schema.fingerprint(known)


def one_line(testbed: Mapping[str, Any]) -> str:
    """A description in one line, for a table's conditions."""
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
