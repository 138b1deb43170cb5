"""How often intervals hold the truth and warnings and verdicts are wrong, on numbers drawn with a known truth.

``python tests/statistics_simulated.py`` prints every figure beside its goal, in a quarter of an hour; the suite holds a
shorter form to looser bounds. Seeds are part of it, so that two runs of the same code print the same.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from evidence import run_codes
from simulated_machine import BASE, Machine, in_processes, simulate, snapshot

from tomebench import stats
from tomebench.errors import EXIT_DIFFERS, EXIT_OPEN
from tomebench.gate.compare import Limits, compare, exit_code
from tomebench.gate.compare_accuracy import MaxDrop, compare_accuracies
from tomebench.gate.judge import speed_remarks
from tomebench.gate.records import Accuracy, CellRecord, Snapshot, packed_bits
from tomebench.runs.budget import BUDGETS
from tomebench.runs.codes import DRIFT
from tomebench.runs.rounds import compare as compare_rounds
from tomebench.runs.validity import slow_first
from tomebench.schema import SENTINEL, UNWRAPPED, Burst, Round

IMAGES = (300, 1000, 5000, 50_000)
DISCORDANT = (0.001, 0.003, 0.01, 0.03, 0.1)
LOST = (0.5, 0.7, 0.9, 1.0)
EXACT = 12
"""Discordant images expected up to which all counts are added up instead of drawn."""
NAMES = ("r0", "r4", "r8", "r16", SENTINEL, UNWRAPPED)


@dataclass(frozen=True)
class Figure:
    """A share that was simulated, and between what it has to lie."""

    what: str
    seen: float
    least: float = 0.0
    most: float = 1.0
    draws: int = 0  # 0: worked out exactly, or the extreme of many

    def holds(self, slack: float = 0.0) -> bool:
        """Whether it is there, or nearly."""
        return self.least - slack <= self.seen <= self.most + slack

    def __str__(self) -> str:
        goal = " and ".join(
            [f"at least {100 * self.least:g} %"] * (self.least > 0)
            + [f"at most {100 * self.most:g} %"] * (self.most < 1)
        )
        error = ""
        if self.draws:
            limits = stats.wilson(self.seen * self.draws, self.draws)
            error = f" [{100 * limits.lo:.1f}, {100 * limits.hi:.1f}] of {self.draws}"
        return f"{'ok  ' if self.holds() else 'MISS'} {self.what}: {100 * self.seen:.1f} %{error} ({goal or 'no goal'})"


@functools.cache
def _limits(lost: int, gained: int, n: int) -> stats.Interval:
    return stats.paired_interval(lost, gained, n)


def _exact_coverage(n: int, shares: tuple[float, float, float], truth: float) -> float:
    """The same by adding up the probabilities of all counts that can be."""
    most = min(n, 3 * EXACT)
    logs = [math.lgamma(k + 1) for k in range(n + 1)]
    total = 0.0
    for lost in range(most + 1):
        for gained in range(most + 1 - lost):
            counts = lost, gained, n - lost - gained
            if any(count and not share for count, share in zip(counts, shares, strict=True)):
                continue
            terms = (
                count * math.log(share) - logs[count] for count, share in zip(counts, shares, strict=True) if count
            )
            probability = math.exp(logs[n] + sum(terms))
            if probability > 1e-9 and truth in _limits(lost, gained, n):
                total += probability
    return total


def delta_coverage(draws: int) -> list[Figure]:
    """How often the interval of Δ top-1 holds the truth: the least and the most over all cases."""
    seen: dict[tuple[int, float, float], float] = {}
    for n in IMAGES:
        for discordant in DISCORDANT:
            for share in LOST:
                shares = (discordant * share, discordant * (1 - share), 1 - discordant)
                truth = discordant * (1 - 2 * share)
                if n * discordant <= EXACT:
                    seen[n, discordant, share] = _exact_coverage(n, shares, truth)
                    continue
                draw = np.random.default_rng([n, int(1e4 * discordant), int(10 * share)])
                tables = draw.multinomial(n, shares, draws)
                held = sum(truth in _limits(int(lost), int(gained), n) for lost, gained, _ in tables)
                seen[n, discordant, share] = held / draws
    enough = [value for (n, discordant, _), value in seen.items() if n * discordant >= 20]
    cases = f"{len(seen)} cases of {IMAGES[0]} to {IMAGES[-1]} images, 0.1 to 10 % discordant, 50 to 100 % of them lost"
    return [
        Figure(f"interval of Δ top-1 holds the truth, least of {cases}", min(seen.values()), least=0.93),
        Figure(f"the same, most of the {len(enough)} with 20 discordant images or more", max(enough), most=0.975),
    ]


def rounds_of(times: npt.NDArray[np.float64]) -> list[Round]:
    """Rounds of these step times, [rounds, variants]."""
    return [
        Round(1, k, tuple(Burst(name, 1, float(t)) for name, t in zip(NAMES, row, strict=True)))
        for k, row in enumerate(times)
    ]


def warnings(draws: int) -> list[Figure]:
    """How often a step of 15 % is seen, and how often noise and spikes are taken for drift or a slow first round."""
    figures = []
    for n in (6, 10, 20):
        found = quiet = spiked = slow = 0
        for seed in range(draws):
            draw = np.random.default_rng([seed, n])
            times = np.exp(draw.normal(0, 0.01, (n, len(NAMES))))
            quiet += DRIFT in run_codes(rounds_of(times), "r0")
            spikes = rounds_of(times * np.where(draw.random(times.shape) < 0.05, 2.0, 1.0))
            spiked += DRIFT in run_codes(spikes, "r0")
            slow += any(slow_first(spikes, name) for name in NAMES)
            times[n // 2 :] *= 1.15
            found += DRIFT in run_codes(rounds_of(times), "r0")
        figures += [
            Figure(f"DRIFT sees a step of 15 % in the middle of {n} rounds", found / draws, least=0.95, draws=draws),
            Figure(f"DRIFT of 1 % noise without any, {n} rounds", quiet / draws, most=0.02, draws=draws),
            Figure(f"DRIFT of 5 % spikes of 2x, {n} rounds", spiked / draws, most=0.05, draws=draws),
            Figure(f"SLOW_FIRST of some variant by 5 % spikes of 2x, {n} rounds", slow / draws, most=0.02, draws=draws),
        ]
    found = quiet = 0
    for seed in range(draws):
        draw = np.random.default_rng([seed, 5])
        times = np.exp(draw.normal(0, 0.01, (5, 6, len(NAMES))))
        quiet += DRIFT in run_codes(_sessions(times), "r0", between=True)
        times *= np.linspace(1.0, 1.15, 6)[None, :, None]
        found += DRIFT in run_codes(_sessions(times), "r0", between=True)
    return [
        *figures,
        Figure("DRIFT sees 15 % in each of five processes of six rounds", found / draws, least=0.95, draws=draws),
        Figure("DRIFT of 1 % noise without any, five processes", quiet / draws, most=0.02, draws=draws),
    ]


def _sessions(times: npt.NDArray[np.float64]) -> list[Round]:
    """Rounds of these step times, [processes, rounds, variants]."""
    made = ((session, rounds_of(own)) for session, own in enumerate(times, start=1))
    return [dataclasses.replace(round_, session=session) for session, own in made for round_ in own]


def latency_coverage(draws: int) -> list[Figure]:
    """How often the interval of a quantile holds the truth where the passes of a round are alike."""
    rounds, passes, apart, own = 120, 17, 0.02, 0.005
    figures = []
    for share in (0.5, 0.95):
        truth = NormalDist(0.0, math.hypot(apart, own)).inv_cdf(share)
        held = given = 0
        for seed in range(draws):
            draw = np.random.default_rng([seed, rounds, passes])
            times = draw.normal(0, apart, (rounds, 1)) + draw.normal(0, own, (rounds, passes))
            found = stats.quantile_interval([*times], share)
            given += found is not None
            held += found is not None and truth in found
        what = f"interval of p{100 * share:.0f} holds the truth, {rounds} rounds of {passes} passes that are alike"
        figures.append(Figure(what, held / max(given, 1), least=0.93, draws=given))
    return figures


def rate_coverage(draws: int) -> list[Figure]:
    """How often the interval of img/s holds the truth where neighbours are alike."""
    figures = []
    for correlation, least in ((0.0, 0.93), (0.5, 0.88), (0.8, 0.0)):
        held = 0
        for seed in range(draws):
            draw = np.random.default_rng([seed, int(10 * correlation)])
            level, logs = 0.0, []
            for step in draw.normal(0, 0.02, 40):
                level = correlation * level + step
                logs.append(level)
            half = stats.batch_half_width(logs)
            held += half is not None and abs(float(np.median(logs))) <= half
        what = f"interval of img/s holds the truth, 40 rounds, neighbours correlated by {correlation:g}"
        figures.append(Figure(what, held / draws, least=least, draws=draws))
    return figures


def accuracy_gate(draws: int) -> list[Figure]:
    """What the gate says of two routes of one model that differ in 2 % of the images by chance, limit half a point."""
    figures = []
    for n, cells in ((300, 1), (1000, 1), (1000, 25), (5000, 1)):
        worse = told = found = 0
        for seed in range(draws if cells == 1 else draws // 4):
            draw = np.random.default_rng([seed, n, cells])
            sure = draw.random((cells, n)) < 0.8
            unsure = draw.random((cells, n)) < 0.04  # of which each route gets half, whichever
            before, after = (np.where(unsure, draw.random((cells, n)) < 0.5, sure) for _ in range(2))
            verdicts = _verdicts_of(before, after)
            worse += "worse" in verdicts
            told += {*verdicts} == {"same"}
            before[:] = np.arange(n) < 0.8 * n
            after = before & (draw.random((cells, n)) > 0.06)
            found += "worse" in _verdicts_of(before, after)
        done = draws if cells == 1 else draws // 4
        what = f"accuracy gate, {n} images" + (f", {cells} cells" if cells > 1 else "")
        figures += [
            Figure(f"{what}, two routes that flip 2 %: worse", worse / done, most=0.01, draws=done),
            Figure(f"{what}, 6 % of the right ones lost: worse", found / done, least=0.95, draws=done),
        ]
        if n == 300:
            figures.append(Figure(f"{what}, two routes that flip 2 %: passes", told / done, least=0.6, draws=done))
    return figures


def _verdicts_of(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> list[str]:
    """Verdicts of cells, [cells, images] right on either side."""
    records = [
        [
            CellRecord.model_construct(
                accuracy=Accuracy(dataset="d", digest="d", n_seen=len(right), complete=True, right=packed_bits(right))
            )
            for right in side
        ]
        for side in (before, after)
    ]
    pairs = {f"r={r}": pair for r, pair in enumerate(zip(*records, strict=True))}
    return [found.verdict for found in compare_accuracies(pairs, MaxDrop(0.5))]


CELLS_25 = {BASE: 0.1, **{f"r{r}": 0.1 / (1 + r / 16) for r in range(1, 25)}}
"""Seconds of a step of r = 0 to 24."""


def process_coverage(draws: int) -> list[Figure]:
    """How often the interval between processes holds the truth, where each has biases of its own."""
    figures = []
    costs = {BASE: 0.1, "r8": 0.1 / 1.3}
    for apart in (0.01, 0.03):
        for count in (3, 5, 10):
            held = 0
            for seed in range(draws):
                rounds = in_processes(count, costs, BUDGETS["quick"], seed=seed, lasting=0.0, white=0.005, apart=apart)
                found = compare_rounds(rounds, BASE, "r8", between=True)
                held += found is not None and found.interval is not None and 1.3 in found.interval
            what = f"interval between {count} processes that differ by {100 * apart:g} % per variant holds the truth"
            figures.append(Figure(what, held / draws, least=0.93, most=0.97, draws=draws))
    return figures


def state_coverage(draws: int) -> list[Figure]:
    """The same where one process in five is 5 % slower for a variant, which no scatter of a few processes shows."""
    figures = []
    for count in (5, 10):
        held = 0
        for seed in range(draws):
            draw = np.random.default_rng([seed, count])
            medians = draw.normal(0, 0.002, count) - 0.05 * (draw.random(count) < 0.2)
            half = stats.mean_half_width(medians)
            held += half is not None and abs(float(np.mean(medians)) + 0.05 * 0.2) <= half
        what = f"the same, {count} processes of which one in five is 5 % slower for one variant, and 0.2 % of noise"
        figures.append(Figure(what, held / draws, draws=draws))
    return figures


def doubled_coverage(draws: int) -> list[Figure]:
    """How often it still does where processes are doubled, as a run proposes, until it is as narrow as asked."""
    figures = []
    costs, budget = {BASE: 0.1, "r8": 0.1 / 1.3}, BUDGETS["standard"]
    for apart in (0.01, 0.03):
        held = 0
        for seed in range(draws):
            rounds = in_processes(20, costs, BUDGETS["quick"], seed=seed, lasting=0.0, white=0.005, apart=apart)
            sessions = sorted({round_.session for round_ in rounds})
            for count in (5, 10, 20):
                some = [round_ for round_ in rounds if round_.session in sessions[:count]]
                found = compare_rounds(some, BASE, "r8", between=True)
                if found is not None and found.half_width is not None and found.half_width <= budget.half_width:
                    break
            held += found is not None and found.interval is not None and 1.3 in found.interval
        what = f"the same, from 5 doubled until it is within {100 * budget.half_width:g} % or there are 20"
        figures.append(
            # Whoever stops when it looks narrow stops more often where it is so by chance: report/README.md says so.
            Figure(f"{what}, processes that differ by {100 * apart:g} %", held / draws, least=0.92, draws=draws)
        )
    return figures


def process_gate(draws: int) -> list[Figure]:
    """What the gate says of 25 cells where processes differ: both sides of five, and a single one beside five."""
    figures = []
    slower = {name: cost * 1.15 if name != BASE else cost for name, cost in CELLS_25.items()}
    for apart in (0.01, 0.03):
        made = functools.partial(in_processes, budget=BUDGETS["quick"], lasting=0.0, white=0.005, apart=apart)
        failed = passed = alone = found = 0
        for seed in range(draws):
            old, new, slow = (
                snapshot(made(5, costs, seed=3 * seed + part), list(CELLS_25), between=True)
                for part, costs in enumerate((CELLS_25, CELLS_25, slower))
            )
            single = snapshot(made(1, CELLS_25, seed=1_000_000 + seed), list(CELLS_25), judged=False)
            failed += "worse" in _verdicts(old, new)
            passed += _verdicts(old, new) <= {"same", "better"}
            alone += "worse" in _verdicts(old, single)
            found += "worse" in _verdicts(old, slow)
        what = f"speed gate, 25 cells, processes that differ by {100 * apart:g} %"
        near = apart == 0.01  # at 3 % five of them can tell neither, and thirty are proposed
        figures += [
            Figure(f"{what}: A/A of 5 and 5 fails", failed / draws, most=0.01, draws=draws),
            Figure(f"{what}: A/A of 5 and 5 passes", passed / draws, least=0.9 if near else 0.0, draws=draws),
            Figure(f"{what}: A/A of 1 beside 5, its A/A control aside, fails", alone / draws, most=0.01, draws=draws),
            Figure(
                f"{what}: 15 % in every cell found, 5 and 5", found / draws, least=0.95 if near else 0.0, draws=draws
            ),
        ]
    return figures


def speed_gate(draws: int) -> list[Figure]:
    """Exit codes of the gate, 25 cells at 3 % noise: two runs of the same, and 15 % planted in one cell or in all."""
    figures = []
    one = {name: cost * 1.15 if name == "r12" else cost for name, cost in CELLS_25.items()}
    every = {name: cost * 1.15 if name != BASE else cost for name, cost in CELLS_25.items()}
    for name in ("quick", "standard"):
        codes: dict[str, list[int]] = {"A/A": [], "one": [], "every": []}
        refused: list[bool] = []
        for seed in range(draws):
            old, *others = (
                snapshot(
                    simulate(Machine(4 * seed + part, lasting=0.0, white=0.03), costs, BUDGETS[name]),
                    list(CELLS_25),
                    {"budget": name},
                )
                for part, costs in enumerate((CELLS_25, CELLS_25, one, every))
            )
            for kind, new in zip(codes, others, strict=True):
                codes[kind].append(exit_code(compare(old, new, ["speed"], Limits())))
            if codes["A/A"][-1] == EXIT_OPEN:
                said = " ".join(speed_remarks(old, others[0], Limits()))
                refused.append("--budget quick cannot decide here" in said and "--budget standard can" in said)
        what = f"speed gate, 25 cells at 3 % noise, {name}"
        alike = [codes["A/A"].count(code) / draws for code in (0, EXIT_DIFFERS)]
        found = [codes[kind].count(EXIT_DIFFERS) / draws for kind in ("one", "every")]
        figures += [
            Figure(f"{what}: A/A exits 3", alike[1], most=0.01, draws=draws),
            Figure(f"{what}: A/A exits 0", alike[0], least=0.9 if name == "standard" else 0.0, draws=draws),
            Figure(f"{what}: 15 % in one cell exits 3", found[0], least=0.95, draws=draws),
            Figure(f"{what}: 15 % in every cell exits 3", found[1], least=0.95, draws=draws),
        ]
        if refused:
            share = sum(refused) / len(refused)
            figures.append(
                Figure(f"{what}: A/A that exits 4 is refused for standard", share, least=0.95, draws=len(refused))
            )
    return figures


def _verdicts(old: Snapshot, new: Snapshot) -> set[str]:
    return {finding.verdict for finding in compare(old, new, ["speed"], Limits())}


ALL: Sequence[tuple[Callable[[int], list[Figure]], int, int]] = (
    (delta_coverage, 4000, 500),
    (warnings, 400, 50),
    (latency_coverage, 1000, 50),
    (rate_coverage, 2000, 250),
    (accuracy_gate, 2000, 100),
    (process_coverage, 2000, 200),
    (state_coverage, 2000, 10),
    (doubled_coverage, 1000, 50),
    (process_gate, 200, 4),
    (speed_gate, 200, 2),
)
"""What is simulated, how often, and how often in the suite."""


def main() -> int:
    """Print all figures; 1 if one misses its goal."""
    figures = [figure for simulate, draws, _ in ALL for figure in simulate(draws)]
    print(*figures, sep="\n")
    return int(not all(figure.holds() for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
