"""All status and warning codes: the texts of each, and the condition under which a row, or a whole run, gets it.

An entry holds everything about its code. The order is that of the report.
"""

from __future__ import annotations

from collections.abc import Callable

from tomebench.runs.accuracy_columns import guesses
from tomebench.runs.evidence import RowEvidence
from tomebench.runs.registered import CODES as CODES
from tomebench.runs.registered import SAME_AS_R as SAME_AS_R
from tomebench.runs.registered import code
from tomebench.runs.registered import row_codes as row_codes
from tomebench.runs.registered import run_codes as run_codes
from tomebench.runs.rounds import throttled, throttled_badly
from tomebench.runs.testbed import fingerprint
from tomebench.runs.validity import (
    DRIFT_OVER,
    NOT_STEADY_OVER,
    aa_failed,
    attn_fallback,
    cpu_busy,
    host_bound,
    mostly,
    noisy,
    power_capped,
    recompiled,
    sessions_apart,
    slow_first,
    unwatched,
)
from tomebench.schema import Burst


def _in_most(row: RowEvidence, judge: Callable[[Burst, int | None], bool]) -> bool:
    """Whether most bursts of the row, or of a variant that it is compared with, satisfy the judge."""
    return any(mostly(judge(burst, row.max_mhz) for burst in each) for each in row.compared)


def _awaits_images(row: RowEvidence) -> bool:
    """Whether a cell lacks images on which all others were evaluated, as one that a later sweep added."""
    answers = row.answers
    lacks = answers is not None and answers.complete and row.key not in answers.predictions
    return lacks and row.stored == "ok" and row.answers is not None and row.answers.race is None


AA_FAILED = code(
    "AA_FAILED",
    note="A/A failed",
    mark="AA",
    brief="two timings of r = 0 disagree: use no speed, run again",
    text="two timings of the very same r = 0 model disagree by over 2 %, so the timing is biased and no speed of this "
    "run can be used; close other programs and run again with a new --out",
    place=10,
    invalid=True,
    of_run=lambda run: run.baseline is not None and aa_failed(run.rounds, run.baseline, between=run.between),
)
OUTPUT_MISMATCH = code(
    "OUTPUT_MISMATCH",
    note="wrong output",
    mark="mismatch",
    brief="a timed pass computed something else: report it",
    text="what the timed passes computed is not what the model computes when it is evaluated, so their speed is "
    "that of something else; leave --compile and --cuda-graphs out, and report it",
    place=60,
    invalid=True,
    of_row=lambda row: row.output_excess > 1,
)
RECOMPILED = code(
    "RECOMPILED",
    note="RECOMPILED",
    mark="recomp",
    brief="compiled while timed, so without speed: run again",
    text="a graph was compiled inside a timed burst, so these rows have no speed; run again with a new --out",
    place=140,
    invalid=True,
    of_row=lambda row: recompiled(row.rounds, {row.key, *row.beside}),
)
code(
    "failed",
    note="failed",
    mark="failed",
    brief="could not be measured",
    text="these rows could not be measured",
    grave=True,
)
code(
    "oom",
    note="out of memory",
    mark="oom",
    brief="out of memory: run again with a smaller --batch-size",
    text="out of memory; the batch size never changes within a sweep, so run again with a smaller --batch-size and "
    "a new --out",
    grave=True,
)
code(
    "nonfinite",
    note="NaN or infinite logits",
    mark="nonfin",
    brief="logits are NaN or infinite: try --dtype fp32 or bf16",
    text="some logits are NaN or infinite, so no accuracy is given; try --dtype fp32 or bf16",
    grave=True,
)
INTERRUPTED = code(
    "INTERRUPTED",
    note="interrupted",
    mark="int",
    brief="timing was stopped: run the same command again to go on",
    text="timing was stopped before its end; run the same command again to go on",
    grave=True,
    place=30,
    of_row=lambda row: row.interrupted and row.status in ("ok", "unconverged"),
)
code(
    "unconverged",
    note="unconverged",
    mark="unc",
    brief="wider than asked; larger --budget, or more --processes if several",
    text="the interval of the speed-up, or of the overhead, is still wider than the budget asks; use a quieter machine "
    "or a larger --budget, or, where several processes have measured it, more --processes",
)
TESTBED_CHANGED = code(
    "TESTBED_CHANGED",
    note="testbed changed",
    mark="testbed",
    brief="resumed elsewhere: img/s mixes machines",
    text="the run was resumed on another machine or with other library versions, so img/s mixes the two; "
    "speed-ups, paired within a round, still hold",
    grave=True,
    place=60,
    of_run=lambda run: len({fingerprint(each) for each in run.testbeds}) > 1,
)
SESSIONS_APART = code(
    "SESSIONS_APART",
    note="other session",
    mark="session",
    brief="rows timed apart: compare speed-ups, not img/s",
    text="some rows were added later and timed in a session of their own, when the machine may have been faster or "
    "slower: compare their speed-ups, each of which is over r = 0 in the same rounds, and not their img/s",
    place=50,
    of_run=lambda run: sessions_apart(run.rounds, run.cells),
)
THROTTLED_BADLY = code(
    "THROTTLED_BADLY",
    note="throttled badly",
    mark="badly",
    brief="the GPU ran under 3/4 of its clock: cool it, run again",
    text="heat or the hardware held the GPU under three quarters of its highest clock, so these speeds are not to "
    "be used; cool it, and run again with a new --out",
    place=100,
    invalid=True,
    of_row=lambda row: _in_most(row, throttled_badly),
)
THROTTLED = code(
    "THROTTLED",
    note="throttled",
    mark="throt",
    brief="heat slowed the GPU down in most rounds: cool it",
    text="heat or the hardware slowed the GPU down in most rounds; cool it",
    place=90,
    of_row=lambda row: _in_most(row, throttled),
)
HOST_BOUND = code(
    "HOST_BOUND",
    note="host bound",
    mark="host",
    brief="the GPU waited for Python: use --cuda-graphs",
    text="the GPU waited for the host, so these speeds are those of Python and the driver, which tokens do not "
    "change; use --cuda-graphs, --compile or a larger --batch-size",
    place=120,
    of_row=lambda row: host_bound(row.own),
)
ALLOCATED = code(
    "ALLOCATED",
    note="allocated",
    mark="alloc",
    brief="the driver was asked for memory: smaller --batch-size",
    text="the driver was asked for memory in most bursts, which takes time; use a smaller --batch-size",
    place=130,
    of_row=lambda row: mostly(burst.allocated > 0 for burst in row.own),
)
POWER_CAPPED = code(
    "POWER_CAPPED",
    note="power capped",
    mark="power",
    brief="the power limit held the clock down: quote it, too",
    text="the power limit held the GPU's clock down, as it does for such work; quote the limit with the speeds",
    place=110,
    of_row=lambda row: power_capped(row.own),
)
NOT_STEADY = code(
    "NOT_STEADY",
    note="not steady",
    mark="unsteady",
    brief="r = 0 drifted by over 10 %; speed-ups hold if all did",
    text="r = 0 became over 10 % faster or slower during the run, so img/s are not those of a steady state; "
    "speed-ups, paired within a round, still hold where that slowed all r alike; compare the mean img/s",
    place=20,
    of_run=lambda run: run.trend > NOT_STEADY_OVER,
)
DRIFT = code(
    "DRIFT",
    note="drift",
    mark="drift",
    brief="r = 0 drifted by over 2 %; speed-ups hold if all did",
    text="r = 0 became over 2 % faster or slower during the run; speed-ups, paired within a round, still hold where "
    "that slowed all r alike; compare the mean img/s",
    place=15,
    of_run=lambda run: run.trend > DRIFT_OVER,
)
SLOW_FIRST = code(
    "SLOW_FIRST",
    note="slow first round",
    mark="slow",
    brief="the first round was slow; the median does not mind",
    text="the first round was slower than the others, so the warm-up was too short; the median does not mind one",
    place=80,
    of_row=lambda row: slow_first(row.rounds, row.key),
)
UNWATCHED = code(
    "UNWATCHED",
    note="GPU unwatched",
    mark="unwatched",
    brief="GPU clock and company unknown: install nvidia-ml-py",
    text="the GPU's clock, energy and company are not known; install nvidia-ml-py (the extra gpu)",
    place=35,
    of_run=lambda run: run.on_gpu and unwatched(run.rounds),
)
GPU_SHARED = code(
    "GPU_SHARED",
    note="GPU shared",
    mark="shared",
    brief="others used the GPU: stop them, run again",
    text="other processes were on the GPU; stop them and run again with a new --out",
    place=30,
    of_run=lambda run: any(round_.gpu_processes for round_ in run.rounds),
)
CPU_BUSY = code(
    "CPU_BUSY",
    note="CPU busy",
    mark="busy",
    brief="others used the CPU: stop them, run again",
    text="other processes took over a tenth of the CPU time; stop them and run again with a new --out",
    place=25,
    of_run=lambda run: cpu_busy(run.rounds),
)
ATTN_FALLBACK = code(
    "ATTN_FALLBACK",
    note="attention fell back",
    mark="attn",
    brief="slow math attention ran: try another --attention",
    text="PyTorch's fused attention would not take this shape and ran its slow math form; try another --attention "
    "or --dtype",
    place=20,
    of_row=lambda row: attn_fallback(row.cell.attention, row.resolved.attn_kernel),
)
NOISY = code(
    "NOISY",
    note="noisy",
    mark="noisy",
    brief="speed-ups scatter by over a seventh; try a larger --budget",
    text="from round to round the speed-up (of r = 0: over its twin) scatters by more than a seventh; close other "
    "programs or use a larger --budget",
    place=70,
    of_row=lambda row: noisy(row.rounds, row.key, row.against),
)
R_CLAMPED = code(
    "R_CLAMPED",
    note="cap",
    mark="cap",
    brief="a block cannot remove as many; read tokens",
    text="in some block the method can remove fewer than r tokens (ToMe: half of its patches); read the tokens column, "
    "not r",
    place=10,
    of_row=lambda row: row.resolved.clamped,
)
PADDED = code(
    "PADDED",
    note="padded",
    mark="padded",
    brief="tokens count padding; tokens_out_mean is what is left",
    text="how many tokens the method leaves depends on the image, so images of a batch are padded to the same number, "
    "and padding is masked: tokens, GMACs and speed are with padding, tokens_out_mean is what is left without",
    place=12,
    of_row=lambda row: row.resolved.padded,
)
CHANCE_LEVEL = code(
    "CHANCE_LEVEL",
    note="chance level",
    mark="chance",
    brief="guessing, or classes in another order: check --class-names",
    text="the unmerged model is right no more often than by guessing, or consistently names other classes than the "
    "labels, so accuracies here mean nothing; check the order of the classes (--class-names) and the preprocessing",
    grave=True,
    place=50,
    of_row=lambda row: row.answers is not None and row.key == row.answers.baseline and guesses(row.answers, row.key),
)


def _of_a_race(name: str, verdict: bool | str | None, note: str, mark: str, brief: str, text: str) -> str:
    """Register the code of rows that a race has stopped with a verdict."""
    at_any_stop = "not run on all images; intervals that hold whenever one stops, and are wider for it"

    def stopped(row: RowEvidence) -> bool:
        answers = row.answers
        if answers is None or not answers.stops(row.key) or row.stored != "ok":
            return False
        if answers.race is not None and answers.race.against:
            return verdict == "against" and row.key in answers.predictions
        return answers.verdicts.get(row.key) is verdict

    return code(
        name, note=note, mark=mark, brief=f"stopped: {brief}", text=f"{text}; {at_any_stop}", place=42, of_row=stopped
    )


KEEPS = _of_a_race(
    "KEEPS", True, "keeps the limit", "keeps", "all images would keep the limit",
    "those seen show that all images would keep the limit",
)  # fmt: skip
BREAKS = _of_a_race(
    "BREAKS", False, "breaks the limit", "breaks", "all images would not surely keep the limit",
    "those seen show that all images would not surely keep the limit",
)  # fmt: skip
NOT_NEEDED = _of_a_race(
    "NOT_NEEDED", None, "not needed", "unneeded", "another row answers the question",
    "another row answers the question, whatever these are like",
)  # fmt: skip
AGAINST = _of_a_race(
    "AGAINST", "against", "against a baseline", "baseline", "its comparison with a baseline is known",
    "its comparison with a baseline is known: tomebench check",
)  # fmt: skip
STOPPED = frozenset({KEEPS, BREAKS, NOT_NEEDED, AGAINST})
"""Codes of rows that were stopped."""
PARTIAL_EVAL = code(
    "PARTIAL_EVAL",
    note="not all images",
    mark="partial",
    brief="not all images were evaluated: run the command again",
    text="not all of the images have been evaluated; run the same command again to go on",
    grave=True,
    place=40,
    of_run=lambda run: run.answers is not None and not run.answers.complete,
    of_row=_awaits_images,
)

INVALID = frozenset(name for name, code in CODES.items() if code.invalid)
"""Codes of rows whose speed must not be used."""
