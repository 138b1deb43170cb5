"""Draw the pictures of the README from a run of the demo: its figure, and its screen as a terminal shows it.

``make docs-images`` runs this; the run is made first where there is none yet.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from tomebench.cli.console import Screen
from tomebench.cli.results import read_run, show, write_run

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "results" / "images"
COLUMNS = 100


def main() -> None:
    """Write both pictures."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "demo"
    if not (run / "run.sqlite").exists():
        subprocess.run([sys.executable, "-m", "tomebench", "demo", "--out", str(run)], check=True, cwd=ROOT)
    rows, config = read_run(run)
    IMAGES.mkdir(exist_ok=True)
    context = write_run(run, rows, config)
    shutil.copy(run / "figure.png", IMAGES / "speed_accuracy.png")
    console = Console(record=True, width=COLUMNS, force_terminal=True, markup=False, highlight=False, emoji=False)
    show(Screen(console, console), rows, context)
    svg = console.export_svg(title="$ make demo", theme=MONOKAI)
    # The picture stands alone: no font is fetched from elsewhere.
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    (IMAGES / "screen.svg").write_text(svg)


if __name__ == "__main__":
    main()
