"""LaTeX tables, which need the package booktabs only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tomebench.report.escape import clean

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "[": "{[}",  # at the start of a line it would be an argument of the line break before it
    "]": "{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class ColumnHead:
    """Title of a table column; neighbours with the same group stand under one group title."""

    name: str
    group: str = ""
    left: bool = False  # words, not numbers
    alone: str = ""  # title in formats without groups; empty: its name


def latex(text: str) -> str:
    """Escape text so that LaTeX prints it as written; characters missing in pdfTeX's fonts become ``U+XXXX``."""
    written = "".join(_SPECIAL.get(c, c if c.isascii() else rf"\texttt{{U+{ord(c):04X}}}") for c in clean(text))
    return written.replace("--", "-{}-")  # which TeX would make one dash


def latex_table(
    heads: Sequence[ColumnHead],
    parts: Sequence[tuple[str, Sequence[Sequence[str]]]],
    *,
    caption: str,
    notes: Sequence[str],
) -> str:
    """Write a ``table*`` with the rules of booktabs, a title line for each part, and notes below.

    Args:
        heads: titles of the columns.
        parts: (title, which may be empty, rows) of each part.
        caption: above the table.
        notes: lines below it.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{latex(caption)}}}",
        r"\makebox[\linewidth][c]{%",  # a wide table reaches into both margins
        rf"\begin{{tabular}}{{@{{}}{''.join('l' if head.left else 'r' for head in heads)}@{{}}}}",
        r"\toprule",
    ]
    if any(head.group for head in heads):
        lines += _groups(heads)
    lines.append(_row([latex(head.name) for head in heads]))
    for title, rows in parts:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{len(heads)}}}{{@{{}}l}}{{\emph{{{latex(title)}}}}} \\")
        lines += [_row([latex(cell) for cell in row]) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if notes:
        lines += ["", r"\smallskip", r"\raggedright", *(rf"{latex(note)}\par" for note in notes)]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _groups(heads: Sequence[ColumnHead]) -> list[str]:
    cells, rules, start = [], [], 0
    while start < len(heads):
        stop = start + 1
        while heads[start].group and stop < len(heads) and heads[stop].group == heads[start].group:
            stop += 1
        cells.append(
            rf"\multicolumn{{{stop - start}}}{{c}}{{{latex(heads[start].group)}}}" if heads[start].group else ""
        )
        if heads[start].group:
            rules.append(rf"\cmidrule(lr){{{start + 1}-{stop}}}")
        start = stop
    return [_row(cells), "".join(rules)]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
