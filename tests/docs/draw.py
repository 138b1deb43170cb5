"""Draw the pictures of the README from a run of the demo: its figure, and its screen as a terminal shows it.

``make docs-images`` runs this; the run is made first where there is none yet.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from tomebench.cli.console import Screen
from tomebench.cli.results import show, write_run
from tomebench.report.several import read_run

ROOT = Path(__file__).parents[2]
RUN, IMAGES = Path("results/demo"), Path("results/images")
COLUMNS = 80


def main() -> None:
    """Write both pictures."""
    os.chdir(ROOT)  # what is shown names no folder of this machine
    if not (RUN / "run.sqlite").exists():
        subprocess.run([sys.executable, "-m", "tomebench", "demo"], check=True)
    rows, config, limit, *_ = read_run(RUN)
    context = write_run(RUN, rows, config, limit)
    IMAGES.mkdir(exist_ok=True)
    shutil.copy(RUN / "figure.png", IMAGES / "speed_accuracy.png")
    terminal = Console(
        file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, markup=False, highlight=False, emoji=False
    )
    show(Screen(terminal, terminal), rows, context)
    drawn = terminal.export_svg(title="make demo", theme=MONOKAI, unique_id="screen")
    # The picture stands alone: no font is fetched from elsewhere.
    (IMAGES / "screen.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL))


if __name__ == "__main__":
    main()
