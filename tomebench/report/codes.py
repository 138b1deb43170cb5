"""Status and warning codes: what stands in the notes of a row, and what is said about it below the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tomebench.report.escape import clean
from tomebench.report.series import which, widest_half_width
from tomebench.runs.row import Row


@dataclass(frozen=True)
class Code:
    """What a status or warning code is called and what it means."""

    note: str  # in the notes of a table
    mark: str  # there, where the table has to be narrow
    brief: str  # what it means or what to do, in a line of a screen of 80 columns
    text: str  # both, in full
    grave: bool = False  # numbers of such rows are not to be quoted


CODES: Mapping[str, Code] = {
    "AA_FAILED": Code(
        "A/A failed",
        "AA",
        "two timings of r = 0 disagree: use no speed, run again",
        "two timings of the very same r = 0 model disagree by over 2 %, so the timing is biased and no speed of this "
        "run can be used; close other programs and run again with a new --out",
        grave=True,
    ),
    "OUTPUT_MISMATCH": Code(
        "wrong output",
        "mismatch",
        "a timed pass computed something else: report it",
        "what the timed passes computed is not what the model computes when it is evaluated, so their speed is "
        "that of something else; leave --compile and --cuda-graphs out, and report it",
        grave=True,
    ),
    "RECOMPILED": Code(
        "RECOMPILED",
        "recomp",
        "compiled while timed, so without speed: run again",
        "a graph was compiled inside a timed burst, so these rows have no speed; run again with a new --out",
        grave=True,
    ),
    "failed": Code(
        "failed",
        "failed",
        "could not be measured",
        "these rows could not be measured",
        grave=True,
    ),
    "oom": Code(
        "out of memory",
        "oom",
        "out of memory: run again with a smaller --batch-size",
        "out of memory; the batch size never changes within a sweep, so run again with a smaller --batch-size and "
        "a new --out",
        grave=True,
    ),
    "nonfinite": Code(
        "NaN or infinite logits",
        "nonfin",
        "logits are NaN or infinite: try --dtype fp32 or bf16",
        "some logits are NaN or infinite, so no accuracy is given; try --dtype fp32 or bf16",
        grave=True,
    ),
    "INTERRUPTED": Code(
        "interrupted",
        "int",
        "timing was stopped: run the same command again to go on",
        "timing was stopped before its end; run the same command again to go on",
        grave=True,
    ),
    "unconverged": Code(
        "unconverged",
        "unc",
        "wider than asked; larger --budget, or more --processes if several",
        "the interval of the speed-up, or of the overhead, is still wider than the budget asks; use a quieter machine "
        "or a larger --budget, or, where several processes have measured it, more --processes",
    ),
    "TESTBED_CHANGED": Code(
        "testbed changed",
        "testbed",
        "resumed elsewhere: img/s mixes machines",
        "the run was resumed on another machine or with other library versions, so img/s mixes the two; "
        "speed-ups, paired within a round, still hold",
        grave=True,
    ),
    "SESSIONS_APART": Code(
        "other session",
        "session",
        "rows timed apart: compare speed-ups, not img/s",
        "some rows were added later and timed in a session of their own, when the machine may have been faster or "
        "slower: compare their speed-ups, each of which is over r = 0 in the same rounds, and not their img/s",
    ),
    "THROTTLED_BADLY": Code(
        "throttled badly",
        "badly",
        "the GPU ran under 3/4 of its clock: cool it, run again",
        "heat or the hardware held the GPU under three quarters of its highest clock, so these speeds are not to "
        "be used; cool it, and run again with a new --out",
        grave=True,
    ),
    "THROTTLED": Code(
        "throttled",
        "throt",
        "heat slowed the GPU down in most rounds: cool it",
        "heat or the hardware slowed the GPU down in most rounds; cool it",
    ),
    "HOST_BOUND": Code(
        "host bound",
        "host",
        "the GPU waited for Python: use --cuda-graphs",
        "the GPU waited for the host, so these speeds are those of Python and the driver, which tokens do not "
        "change; use --cuda-graphs, --compile or a larger --batch-size",
    ),
    "ALLOCATED": Code(
        "allocated",
        "alloc",
        "the driver was asked for memory: smaller --batch-size",
        "the driver was asked for memory in most bursts, which takes time; use a smaller --batch-size",
    ),
    "POWER_CAPPED": Code(
        "power capped",
        "power",
        "the power limit held the clock down: quote it, too",
        "the power limit held the GPU's clock down, as it does for such work; quote the limit with the speeds",
    ),
    "NOT_STEADY": Code(
        "not steady",
        "unsteady",
        "r = 0 drifted by over 10 %; speed-ups hold if all did",
        "r = 0 became over 10 % faster or slower during the run, so img/s are not those of a steady state; "
        "speed-ups, paired within a round, still hold where that slowed all r alike; compare the mean img/s",
    ),
    "DRIFT": Code(
        "drift",
        "drift",
        "r = 0 drifted by over 2 %; speed-ups hold if all did",
        "r = 0 became over 2 % faster or slower during the run; speed-ups, paired within a round, still hold where "
        "that slowed all r alike; compare the mean img/s",
    ),
    "SLOW_FIRST": Code(
        "slow first round",
        "slow",
        "the first round was slow; the median does not mind",
        "the first round was slower than the others, so the warm-up was too short; the median does not mind one",
    ),
    "UNWATCHED": Code(
        "GPU unwatched",
        "unwatched",
        "GPU clock and company unknown: install nvidia-ml-py",
        "the GPU's clock, energy and company are not known; install nvidia-ml-py (the extra gpu)",
    ),
    "GPU_SHARED": Code(
        "GPU shared",
        "shared",
        "others used the GPU: stop them, run again",
        "other processes were on the GPU; stop them and run again with a new --out",
    ),
    "CPU_BUSY": Code(
        "CPU busy",
        "busy",
        "others used the CPU: stop them, run again",
        "other processes took over a tenth of the CPU time; stop them and run again with a new --out",
    ),
    "ATTN_FALLBACK": Code(
        "attention fell back",
        "attn",
        "slow math attention ran: try another --attention",
        "PyTorch's fused attention would not take this shape and ran its slow math form; try another --attention "
        "or --dtype",
    ),
    "NOISY": Code(
        "noisy",
        "noisy",
        "speed-ups scatter by over a seventh; try a larger --budget",
        "from round to round the speed-up (of r = 0: over its twin) scatters by more than a seventh; close other "
        "programs or use a larger --budget",
    ),
    "R_CLAMPED": Code(
        "cap",
        "cap",
        "half of the tokens is the most a block merges; read tokens",
        "a block can merge away at most half of its patch tokens, and this cap lowered r in some block; read the "
        "tokens column, not r",
    ),
    "CHANCE_LEVEL": Code(
        "chance level",
        "chance",
        "guessing, or classes in another order: check --class-names",
        "the unmerged model is right no more often than by guessing, or consistently names other classes than the "
        "labels, so accuracies here mean nothing; check the order of the classes (--class-names) and the "
        "preprocessing",
        grave=True,
    ),
    "PARTIAL_EVAL": Code(
        "not all images",
        "partial",
        "not all images were evaluated: run the command again",
        "not all of the images have been evaluated; run the same command again to go on",
        grave=True,
    ),
}
"""Every code, in the order of the report."""

EXPLANATIONS: Mapping[str, str] = {code: about.text for code, about in CODES.items()}
"""What each code means and what to do next."""

_SAME_AS = re.compile(r"SAME_AS_R(\d+)")
_WITH_ERRORS = ("failed", "oom", "nonfinite")  # the others have no error but a width, which is in the notes


def notes(row: Row) -> str:
    """What is special about a row, in a few words, e.g. ``±2.3 %, unconverged, cap``."""
    words = []
    if row.status == "unconverged" and (width := widest_half_width(row)) is not None:
        words.append(f"±{100 * width:.1f} %")
    for code in _codes(row):
        same = _SAME_AS.fullmatch(code)
        words.append(f"same as r={same[1]}" if same else CODES[code].note if code in CODES else clean(code))
    return ", ".join(words)


def short_notes(rows: Sequence[Row]) -> list[str]:
    """The notes of every row as marks, e.g. ``unc cap``; what every row has is left to the lines below the table."""
    everywhere = set.intersection(*(set(_codes(row)) for row in rows)) if len(rows) > 1 else set()
    return [" ".join(_mark(code) for code in _codes(row) if code not in everywhere) for row in rows]


def warning_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line per status or warning code that occurs: the code, the rows, what it means and what to do."""
    lines = []
    for code, members in _found(rows).items():
        text = EXPLANATIONS.get(code, "see this code in the column warnings of table.csv")
        if same := _SAME_AS.fullmatch(code):
            text = (
                f"these remove the same tokens as r = {same[1]} in every block; leave them out, any difference is noise"
            )
        if code in _WITH_ERRORS:
            errors = _errors(members)
            text = "; ".join([text, *errors[:2], *["more in the column error of table.csv"] * (len(errors) > 2)])
        lines.append(f"{clean(code)} ({which(rows, members)}): {text}")
    return tuple(lines)


def brief_lines(rows: Sequence[Row], width: int) -> list[tuple[str, str]]:
    """The same in brief, the gravest first: a name to call it by, and a line.

    A line names its rows, and an error, where ``width`` leaves room; the notes and ``table.csv`` have them, too.
    """
    found = _found(rows)
    lines = []
    if "NOT_STEADY" in found:
        found.pop("DRIFT", None)  # which it says already
    for code in sorted(found, key=lambda code: not (code in CODES and CODES[code].grave)):
        brief = CODES[code].brief if code in CODES else "see the column warnings of table.csv"
        if same := _SAME_AS.fullmatch(code):
            brief = f"the same tokens as at r = {same[1]}: leave them out"
        mark = _mark(code)
        name = clean(code) if mark.lower() in code.lower() or same else f"{mark}, {code}"
        if code in _WITH_ERRORS and len(errors := _errors(found[code])) == 1:
            brief = _longest((f"{brief}; {errors[0]}", errors[0], brief), width - len(name) - 2)
        place = f"{name} ({which(rows, found[code])})"
        lines.append((mark, _longest((f"{place}: {brief}", f"{name}: {brief}"), width)))
    return lines


def _found(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by code, in the order of the report; unknown codes last, as they came."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for code in _codes(row):
            found.setdefault(code, []).append(row)
    rank = {code: number for number, code in enumerate(CODES)}
    return {code: found[code] for code in sorted(found, key=lambda code: rank.get(code, len(rank)))}


def _codes(row: Row) -> list[str]:
    # Of a row that was cut short it is no news that its interval is wide, and another budget is not what it wants.
    unsaid = ("ok", "unconverged") if "INTERRUPTED" in row.warnings else ("ok",)
    status = [] if row.status in unsaid else [row.status]
    clamped = ["R_CLAMPED"] if row.clamped else []
    return list(dict.fromkeys([*status, *clamped, *row.warnings]))


def _mark(code: str) -> str:
    if same := _SAME_AS.fullmatch(code):
        return f"=r{same[1]}"
    return CODES[code].mark if code in CODES else clean(code)


def _errors(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(clean(row.error) for row in rows if row.error))


def _longest(texts: Sequence[str], width: int) -> str:
    """The first that fits, else the last."""
    return next((text for text in texts if len(text) <= width), texts[-1])
