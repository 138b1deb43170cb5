"""Escaping of text from users and files for terminals, csv, markdown and continuous-integration logs.

Model names, paths and error texts must stay text in a report: they never become a spreadsheet formula, markup, a
terminal escape code or a command of a continuous-integration log.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of invisible characters: controls, bidi and zero-width formats, surrogates, line separators."""
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
"""First characters of what a spreadsheet runs as a formula, full-width forms included."""
_GUARD = "'"


def clean(text: str) -> str:
    r"""Make text one printable line: invisible characters become visible escapes such as ``\x1b`` or ``\n``.

    ``##[``, which build logs read as a command anywhere in a line, gets a space; a leading ``::``, the newer form of
    the same, gets an apostrophe. Cleaning is idempotent.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(_visible(c) if _is_invisible(c) else c for c in text)
    text = text.replace("##[", "## [")
    return _GUARD + text if text.lstrip().startswith("::") else text


def csv_guard(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet could run as a formula; :func:`csv_unguard` removes it.

    Text that itself starts with an apostrophe gets one, too, so that the two are exact inverses. Not for numbers.
    """
    risky = text.startswith((_GUARD, "\t", "\r")) or text.lstrip().startswith(tuple(_FORMULA))
    return _GUARD + text if risky else text


def csv_unguard(text: str) -> str:
    """Inverse of :func:`csv_guard`."""
    return text.removeprefix(_GUARD)


def markdown(text: str) -> str:
    """Escape text to one line of markdown that is shown as written: no table border, html, code, emphasis or link."""
    text = clean(text).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[|`*~]", r"\\\g<0>", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # vit_base needs no escape, _x_ does
    return re.sub(r"\](?=[(\[:])", r"\\]", text)  # "[1.29, 1.33] (12 rounds)" needs none, "[x](y)" does


def _is_invisible(character: str) -> bool:
    # The last two code points of every plane are no characters, and two of them are forbidden in XML.
    return unicodedata.category(character) in _INVISIBLE or ord(character) & 0xFFFE == 0xFFFE


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
