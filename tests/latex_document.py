"""A LaTeX document around a table, and whether it compiles."""

from __future__ import annotations

import subprocess
from pathlib import Path


def document(table: str) -> str:
    """What a user would paste a table into."""
    return "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + table + "\\end{document}\n"


def compiles(text: str, folder: Path) -> bool:
    """Whether pdflatex makes a document of it without an error, and nothing runs off a page or over a line."""
    (folder / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        return False
    log = (folder / "paper.log").read_text(errors="replace")
    return "Overfull" not in log and "too large" not in log
