"""Numbers with nouns in singular or plural, and durations, for messages to the user."""

from __future__ import annotations

import math


def counted(number: float, word: str) -> str:
    """A number with its noun: ``1 image``, ``2 images``, ``0 batches``, ``1.5 CPUs``."""
    return f"{number:.15g} {noun(number, word)}"


def duration(seconds: float) -> str:
    """A duration as ``40 s``, ``3 min`` or ``2.5 h``, rounded up."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{math.ceil(seconds / 360) / 10:g} h"


def noun(number: float, word: str) -> str:
    """A regular noun in the number: ``image`` or ``images``, ``batch`` or ``batches``."""
    if number == 1:
        return word
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def are(number: float) -> str:
    """The verb for a number: ``is`` for 1, else ``are``."""
    return "is" if number == 1 else "are"
