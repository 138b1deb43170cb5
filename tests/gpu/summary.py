"""Pack what a quarter of an hour on a GPU left, with a summary that a person reads in a minute.

Usage: summary.py WORK OUT STEP:SECONDS...

WORK holds steps.tsv (name, verdict, seconds, limit, reason), a log per step in logs/ and the run folders in runs/. OUT
gets summary.txt, logs.tar.gz and runs.tar.gz, each under 16 MiB: what is largest is left out, and named.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 15 * 2**20
"""Bytes of an archive. Under 16 MiB with room for what the file system adds."""
SHOWN_R = (0, 8, 13)
DEFECTS = 24
_ROUTE = re.compile(r", batch \d|: \d+ img/s|: does not run here")
_FIGURES = (
    "img_per_s",
    "speedup_vs_r0",
    "speedup_vs_r0_lo",
    "speedup_vs_r0_hi",
    "merge_overhead",
    "latency_p50_ms",
    "gpu_mhz",
    "j_per_img",
)


@dataclass(frozen=True)
class Step:
    """What became of a step."""

    name: str
    verdict: str  # ok, failed, timed out, skipped, stopped, not started
    seconds: str
    limit: str
    reason: str


def read_steps(work: Path, planned: Sequence[str]) -> list[Step]:
    """Every planned step, in order; one that left no trace was not started."""
    file = work / "steps.tsv"
    lines = file.read_text().splitlines() if file.exists() else []
    known = {step.name: step for step in (Step(*line.split("\t")) for line in lines)}
    plan = [each.partition(":") for each in planned]
    return [known.get(name, Step(name, "not started", "0", limit, "")) for name, _, limit in plan]


def read_log(work: Path, name: str) -> list[str]:
    file = work / "logs" / f"{name}.log"
    return file.read_text(errors="replace").splitlines() if file.exists() else []


def machine_lines(work: Path) -> list[str]:
    """What the machine is and what it lacks."""
    wanted = re.compile(
        r"^(Python|torch|triton|timm|built for|NVIDIA|Tesla|GPU|not possible)|GiB, |missing|MHz|^device"
    )
    return [line.rstrip() for line in read_log(work, "machine") if wanted.search(line)]


def test_lines(work: Path) -> list[str]:
    """The count of tests, and every one that failed."""
    log = read_log(work, "tests")
    failed = [line for line in log if line.startswith(("FAILED", "ERROR"))]
    return [*(line[:200] for line in failed), *[line.strip("= ") for line in log[-1:]]]


def read_run(run: Path) -> list[dict[str, Any]]:
    """Rows of a run folder, as ``tomebench report`` rebuilds them."""
    import pandas as pd

    from tomebench.api import load_results

    rows = load_results(run).to_dict("records")
    return [{name: None if value is pd.NA else value for name, value in row.items()} for row in rows]


def row_line(row: dict[str, Any]) -> str:
    """The figures of one r."""
    parts = [f"r = {row['r']}"]
    value = {name: row[name] for name in _FIGURES}
    if value["img_per_s"] is not None:
        parts.append(f"{value['img_per_s']:.1f} img/s")
    if row["r"] and value["speedup_vs_r0"] is not None:
        interval = value["speedup_vs_r0_lo"], value["speedup_vs_r0_hi"]
        known = None not in interval
        parts.append(f"{value['speedup_vs_r0']:.3f}x" + (" [{:.3f}, {:.3f}]".format(*interval) if known else ""))
    if value["merge_overhead"] is not None:
        parts.append(f"{value['merge_overhead']:+.1f} % over the ceiling")
    if value["latency_p50_ms"] is not None:
        parts.append(f"p50 {value['latency_p50_ms']:.2f} ms")
    if value["gpu_mhz"] is not None:
        parts.append(f"{value['gpu_mhz']:.0f} MHz")
    if value["j_per_img"] is not None:
        parts.append(f"{value['j_per_img']:.3f} J an image")
    parts.append(row["status"])
    if row.get("error"):
        parts.append(str(row["error"])[:120])
    if row["warnings"]:
        parts.append(row["warnings"])
    return "  " + ", ".join(parts)


def run_lines(runs: dict[str, list[dict[str, Any]]], unreadable: dict[str, str]) -> list[str]:
    """The key figures of every sweep, and of the A/A: the same sweep in two processes."""
    lines = []
    for name, rows in runs.items():
        if rows:
            lines.append(
                f"{name}: {rows[0]['model']}, {rows[0]['dtype']}, batch {rows[0]['batch_size']}, {rows[0]['mode']}"
            )
        lines += [row_line(row) for row in rows if row["r"] in SHOWN_R]
    lines += [f"{name}: {reason}" for name, reason in unreadable.items()]
    first, again = ({row["r"]: row for row in runs.get(name, [])} for name in ("vit_b", "vit_b_again"))
    for r in sorted(first.keys() & again.keys()):
        pairs = [(column, first[r][column], again[r][column]) for column in ("img_per_s", "speedup_vs_r0")]
        ratios = [f"{column} {new / old:.4f}" for column, old, new in pairs if old and new]
        if ratios:
            lines.append(f"A/A r = {r}: the second process over the first: {', '.join(ratios)}")
    return lines


def defect_lines(work: Path) -> list[str]:
    """What the probes said, and which defects none was reached for."""
    logs = [line for name in ("probes", "probes_rest") for line in read_log(work, name)]
    found = [line for line in logs if line.startswith("defect ")]
    missing = set(range(1, DEFECTS + 1)) - {int(line.split()[1].rstrip(":")) for line in found}
    return [*found, *([f"not reached: {', '.join(map(str, sorted(missing)))}"] if missing else [])]


def summarise(work: Path, steps: Sequence[Step]) -> str:
    """The summary without what was left out."""
    runs, unreadable = {}, {}
    for step in steps:
        if (run := work / "runs" / step.name).is_dir():
            try:
                runs[step.name] = read_run(run)
            except Exception as error:  # noqa: BLE001 (a summary of the rest is worth more)
                unreadable[step.name] = f"cannot be read: {' '.join(str(error).split())[:160]}"
    sections = {
        "Machine": machine_lines(work),
        "Steps": [f"{s.name:<16} {s.verdict:<12} {s.seconds:>4} of {s.limit:>4} s  {s.reason}".rstrip() for s in steps],
        "Tests": test_lines(work),
        "Sweeps": run_lines(runs, unreadable),
        "Attention routes": [line for line in read_log(work, "routes") if _ROUTE.search(line)],
        "Defects": defect_lines(work),
    }
    for step in steps:
        if step.verdict in ("failed", "timed out"):
            sections[f"Last lines of {step.name}"] = [line[:200] for line in read_log(work, step.name)[-5:]]
    return "\n\n".join("\n".join([title, *(lines or ["  nothing"])]) for title, lines in sections.items()) + "\n"


def pack(folder: Path, file: Path, limit: int = LIMIT) -> list[str]:
    """Write a folder's files as one archive.

    Returns:
        What was left out, largest first, because the archive would have been larger than ``limit``.
    """
    files = sorted((each for each in folder.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    left_out: list[str] = []
    while True:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as archive:
            for each in files:
                archive.add(each, f"{folder.name}/{each.relative_to(folder)}")
        if data.tell() <= limit or not files:
            file.write_bytes(data.getvalue())
            return left_out
        left_out.append(str(files.pop().relative_to(folder.parent)))


def main() -> None:
    work, out, planned = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    steps = read_steps(work, planned)
    left_out = pack(work / "logs", out / "logs.tar.gz") + pack(work / "runs", out / "runs.tar.gz")
    text = summarise(work, steps)
    if left_out:
        text += f"\nLeft out, too large: {', '.join(left_out)}\n"
    (out / "summary.txt").write_text(text)


if __name__ == "__main__":
    main()
