"""LaTeX: what is written is what is printed, and a document with booktabs compiles it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex_document import compiles, document

from tomebench.report.latex import ColumnHead, latex, latex_table

HEADS = (
    ColumnHead("choice", left=True),
    ColumnHead("reported", "top-1"),
    ColumnHead("here", "top-1"),
    ColumnHead("tokens"),
)
NASTY = r"a_b & 50% #1 $x$ {y} \end{tabular} ~^ <t> | \"q\" --flag [1, 2] ± × Δ … 中 é" + "\x1b"
PARTS = (
    ("ViT-S/16_a", (("[first]", "81.41", "-", "197"), (NASTY, "79.30", "79.28", "41"))),
    ("", (("x", "", "", ""),)),
)


ESCAPED = (
    r"\\[a-zA-Z]+\{\}",
    r"\\texttt\{U\+[0-9A-F]{4,6}\}",
    r"\{\\ttfamily\\char34\}",
    r"\$\\?[a-zA-Z]+\$",
    r"\$-\$",
    r"\\[&%$#_{}]",
    r"\{[\[\]]\}",
)
"""What stands for one character."""
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs")


@needs_latex
def test_a_table_compiles_with_booktabs_alone(tmp_path: Path) -> None:
    table = latex_table(HEADS, PARTS, caption=f"Reported & measured {NASTY}", notes=[NASTY, "reported: x_y (exact)"])
    assert compiles(document(table), tmp_path)
    assert not compiles(document(table.replace(r"\_", "_")), tmp_path), "the check notices what is not escaped"
    assert not compiles(document(table.replace(r"\makebox[\linewidth][c]{%", "{" + "x" * 90)), tmp_path), "or too wide"
    assert not compiles(document(table).replace(r"\usepackage{booktabs}", ""), tmp_path)


def test_groups_share_a_head_and_a_rule() -> None:
    lines = latex_table(HEADS, PARTS[:1], caption="c", notes=[]).splitlines()
    place = lines.index(r"\toprule")
    assert lines[place + 1 : place + 4] == [
        r" & \multicolumn{2}{c}{top-1} &  \\",
        r"\cmidrule(lr){2-3}",
        r"choice & reported & here & tokens \\",
    ]
    assert r"\begin{tabular}{@{}lrrr@{}}" in lines
    assert lines[place + 4 : place + 7] == [
        r"\midrule",
        r"\multicolumn{4}{@{}l}{\emph{ViT-S/16\_a}} \\",
        r"{[}first{]} & 81.41 & - & 197 \\",
    ]


@given(st.text())
def test_no_text_can_leave_its_place(text: str) -> None:
    """Ascii, balanced braces, and no special character or comment but those that escape one."""
    written = latex(text)
    assert written.isascii()
    assert "\n" not in written
    assert "--" not in written
    rest = re.sub("|".join(ESCAPED), "", written)
    assert not set(rest.replace("-{}-", "").replace("{}-", "")) & set("\\&%$#_{}~^[]")
