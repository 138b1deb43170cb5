"""Numbers with their nouns, as every line for the user says them."""

from __future__ import annotations


def counted(number: float, word: str) -> str:
    """``1 image``, ``2 images``, ``0 batches``; a fraction as short as it goes."""
    return f"{number:.15g} {noun(number, word)}"


def noun(number: float, word: str) -> str:
    """``image`` or ``images``, ``batch`` or ``batches``: regular nouns only."""
    if number == 1:
        return word
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def are(number: float) -> str:
    """``is`` or ``are``."""
    return "is" if number == 1 else "are"
