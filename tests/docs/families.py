"""Write the table of timm's families into the page on models: which can be merged, and what the others would need.

``make docs-families`` runs this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import timm

from tomebench.cli.architectures import Architecture, architectures, by_family

PAGE = Path(__file__).parents[2] / "tomebench" / "models" / "README.md"
_HEAD = ("family", "architectures", "weights", "why not, or what would have to be built")


def table(found: Sequence[Architecture]) -> str:
    """The table as markdown, and a line with the sums."""
    merged = [each for each in found if not each.why]
    weights = [sum(each.weights for each in some) for some in (merged, found)]
    lines = [f"| {' | '.join(cells)} |" for cells in (_HEAD, ("---", "---", "---", "---"), *by_family(found))]
    said = f"{len(merged)} of {len(found)} architectures and {weights[0]} of {weights[1]} weights"
    return "\n".join([*lines, "", f"{said} of timm {timm.__version__} (`make docs-families`)."])


def written(page: str, text: str) -> str:
    """The page with another text between its two marks."""
    return re.sub(r"(?<=<!-- families -->\n).*?(?=\n<!-- end -->)", lambda _: text, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), table([*architectures()])))
