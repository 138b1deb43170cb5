"""Numbers with their nouns, as every line for the user says them."""

from __future__ import annotations

import math


def counted(number: float, word: str) -> str:
    """``1 image``, ``2 images``, ``0 batches``; a fraction as short as it goes."""
    return f"{number:.15g} {noun(number, word)}"


def duration(seconds: float) -> str:
    """``40 s``, ``3 min`` or ``2.5 h``, never less than it is."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{math.ceil(seconds / 360) / 10:g} h"


def noun(number: float, word: str) -> str:
    """``image`` or ``images``, ``batch`` or ``batches``: regular nouns only."""
    if number == 1:
        return word
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def are(number: float) -> str:
    """``is`` or ``are``."""
    return "is" if number == 1 else "are"
