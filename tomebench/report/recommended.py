"""A recommendation in words, as a table and as a JSON object."""

from __future__ import annotations

from typing import Any

from tomebench.compare.candidates import Candidate, Estimate
from tomebench.compare.points import Speed
from tomebench.compare.recommend import Recommendation
from tomebench.report.escape import clean
from tomebench.report.narrow import Step, Table, before, without
from tomebench.report.series import interval
from tomebench.runs.goal import Goal, latency_ms
from tomebench.words import counted

_CHOICE, _ELSEWHERE = "loss in the choice [95%]", "loss elsewhere [95%]"
NARROWER = (
    Step(_CHOICE, "in the choice", before(" ["), lost="the interval of the loss in the choice"),
    without("tokens"),
    without("ms"),
    Step("speed-up [95%]", "speed-up", before(" ["), lost="the interval of the speed-up"),
)
"""Steps that make the table narrower, in order."""
_WHY = {
    "nothing to choose from": "no row can be compared with r=0 on the same images; sweep with --data and other values "
    "of r",
    "at chance level": "top-1 at r=0 is that of guessing, or of classes in another order; check the order of the "
    "classes and the preprocessing",
    "unfinished": "not all images that it takes were evaluated; run the same command again, which goes on",
    "another question": "the run was stopped as soon as it answered another question; ask this one with --model and "
    "--data, which goes on in its folder",
    "not faster": "no row is surely faster than r=0; try larger values of r, a larger --budget or a quieter machine",
    "too slow": "no row keeps the limits of speed; try larger values of r, or another model",
    "no images left": "the chosen row was evaluated on no images but those that it was chosen on; recommend it with "
    "--model and --data, or sweep with --until recommended",
}


def sentence(found: Recommendation, chosen_by: str = "choice") -> str:
    """The answer in words: what to take, what it was estimated to lose on which images, and how sure that is.

    Args:
        found: the answer.
        chosen_by: what the other images had a part in.
    """
    if found.why is not None:
        return f"Nothing can be recommended: {_WHY[found.why]}"
    goal = found.goal
    if found.chosen is None:
        nearest = found.close[0]
        lost = "" if nearest.choice is None else f", and loses {loss(nearest.choice, goal)}"
        return f"Stay with r=0: no row keeps {_limit(goal)}; {clean(nearest.name)} comes nearest{lost}"
    chosen = found.chosen
    assert chosen.estimate is not None
    text = f"Take {clean(chosen.name)}{_speed(found, chosen)}: "
    if found.found == "best":
        text += f"the most accurate with {goal}; "
    elif found.found == "seems":
        text += f"no row surely keeps {_limit(goal)} on the images of the choice, and it is the fastest that seems to; "
    text += f"on {counted(chosen.estimate.n, 'image')} that had no part in the {chosen_by} it loses "
    text += loss(chosen.estimate, goal)
    if found.verdict == "surely":
        return f"{text}, surely within {_amount(goal)}"
    if found.verdict == "likely":
        more = "no number of images would" if found.images is None else f"about {counted(found.images, 'image')} would"
        return f"{text}, within {_amount(goal)} but not surely: {more} show it if that is how it stays"
    if found.verdict is not None:
        beyond = "surely more than" if found.verdict == "surely not" else "more than"
        return f"{text}, {beyond} {_amount(goal)}: the choice was lucky, so take a slower row or give more images"
    return text


def table(found: Recommendation) -> Table:
    """The chosen row and those that come near, with losses on the images of the choice and on the others."""
    rows = [*([found.chosen] if found.chosen else []), *found.close]
    columns = {
        "": ["chosen" if each is found.chosen else "close" for each in rows],
        "row": [clean(each.name) for each in rows],
        "tokens": [str(each.measured.row.tokens_out) for each in rows],
        "speed-up [95%]": [ratio(each.speed) for each in rows],
        "ms": ["-" if (ms := latency_ms(each.measured.row)) is None else f"{ms:.2f}" for each in rows],
        _CHOICE: [loss(each.choice, None) for each in rows],
        _ELSEWHERE: [loss(each.estimate, None) for each in rows],
    }
    heads = [head for head, cells in columns.items() if set(cells) != {"-"}]
    return heads, [list(cells) for cells in zip(*(columns[head] for head in heads), strict=True)]


def about(found: Recommendation) -> list[str]:
    """Lines below the table: what its columns mean, and what the runs lack."""
    what = "agreement with" if found.goal.by_agreement else "top-1 against"
    said = [f"loss: points of {what} {clean(found.base)}, on the same images; the choice sees one half of them only"]
    if found.over is not None:
        said.append(f"speed-ups are over {clean(found.over)}, and of the rounds that the choice saw")
    return [*said, *map(clean, found.remarks)]


def as_json(found: Recommendation) -> dict[str, Any]:
    """The recommendation as plain values."""
    return {
        "sentence": sentence(found),
        "recommended": None if found.chosen is None or found.why else plain(found.chosen),
        "verdict": found.verdict,
        "found": found.found,
        "why_nothing": found.why,
        "images_needed": found.images,
        "goal": {name: value for name, value in vars(found.goal).items() if value is not None},
        "close": [plain(each) for each in found.close],
        "base": found.base,
        "over": found.over,
        "remarks": list(found.remarks),
    }


def plain(each: Candidate) -> dict[str, Any]:
    """A candidate as plain values."""
    row = each.measured.row
    names = ("model", "weights", "img_size", "method", "options", "schedule", "r", "batch_size", "dtype", "device")
    return {
        "name": each.name,
        "run": each.measured.run,
        **{name: getattr(row, name) for name in names},
        "tokens": row.tokens_out,
        "gmacs": row.gmacs,
        "speedup": None if each.speed is None else list(each.speed),
        "latency_ms": latency_ms(row),
        "choice": counts(each.choice),
        "estimate": counts(each.estimate),
        "keeps_limit_in_choice": each.keeps,
    }


def counts(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain values."""
    if estimate is None:
        return None
    ends = [-100 * estimate.interval.hi, -100 * estimate.interval.lo]
    return {"images": estimate.n, "lost": estimate.lost, "gained": estimate.gained, "loss": estimate.drop, "95%": ends}


def _limit(goal: Goal) -> str:
    return str(Goal(goal.max_drop, goal.min_agreement))


def _amount(goal: Goal) -> str:
    return counted(float(f"{goal.largest_loss:.6g}"), "point")


def loss(estimate: Estimate | None, goal: Goal | None) -> str:
    """Loss in points with its interval; with a goal, in words."""
    if estimate is None:
        return "-"
    limits = interval(-100 * estimate.interval.hi, -100 * estimate.interval.lo, ".2f")
    if goal is None:
        return f"{estimate.drop:.2f}{limits}"
    what = " of agreement" if goal.by_agreement else ""
    return f"{estimate.drop:.2f} points{what}{limits}"


def ratio(speed: Speed | None) -> str:
    """A speed-up with its interval."""
    return "-" if speed is None else f"{speed.value:.2f}x{interval(speed.lo, speed.hi, '.2f')}"


def _speed(found: Recommendation, chosen: Candidate) -> str:
    row = chosen.measured.row
    if chosen.speed is not None and found.over is not None:
        return f", {ratio(chosen.speed)} as fast as {clean(found.over)}"
    if row.img_per_s is not None:
        return f", {row.img_per_s:.1f} img/s"
    return f", {100 * (1 - 1 / row.mac_ratio):.0f} % fewer MACs"
