"""Download what a GPU machine without network may lack, for its Python: what ``make gpu-wheels`` runs.

The list is that of ``pyproject.toml``, the extras ``gpu`` and ``test`` included. What comes with a machine's PyTorch is
used as found there, and only that Python's wheels are taken: a source archive could not be built there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
AS_FOUND = {"torch", "torchvision", "timm", "numpy", "pandas", "pillow"}
WITHOUT_NEEDS = {"scipy"}
"""Needs nothing but what is used as found."""
PLATFORMS = ["manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34))]
LIMIT = 60 * 2**20


def requirements() -> list[str]:
    """What the package, its gauges and its tests need, without what is used as found."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["test"]]
    return [each for each in wanted if name(each) not in AS_FOUND]


def name(requirement: str) -> str:
    """``pydantic`` of ``pydantic>=2.8``."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def download(wanted: list[str], folder: Path, python: str, *flags: str) -> None:
    """Fetch wheels of these for that Python, and of what they need."""
    tags = [flag for platform in PLATFORMS for flag in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    target = ["--implementation", "cp", "--python-version", python, *tags, "--dest", str(folder)]
    subprocess.run([*pip, *target, *flags, *wanted], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="3.12", help="that of the GPU machine, such as 3.12 or 312")
    parser.add_argument("--into", type=Path, default=ROOT / ".gpu-wheels")
    given = parser.parse_args()
    for old in given.into.glob("*.whl"):  # two versions of one library would stop the whole installation
        old.unlink()
    wanted = requirements()
    try:
        download([each for each in wanted if name(each) not in WITHOUT_NEEDS], given.into, given.python)
        download([each for each in wanted if name(each) in WITHOUT_NEEDS], given.into, given.python, "--no-deps")
    except subprocess.CalledProcessError:
        print(f"gpu-wheels: pip could not fetch wheels for Python {given.python}; see above", file=sys.stderr)
        return 1
    wheels = list(given.into.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels for Python {given.python}, {size / 2**20:.1f} MiB, in {given.into}")
    if size > LIMIT:
        print(f"gpu-wheels: over {LIMIT // 2**20} MiB; leave something out", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
