"""The result of a search in words, as a table and as a JSON object."""

from __future__ import annotations

import dataclasses
from typing import Any

from tomebench.compare.candidates import Candidate, Estimate
from tomebench.compare.searched import Rival, Searched
from tomebench.reduction.schedule import lists_every_r
from tomebench.report.escape import clean, markdown
from tomebench.report.narrow import Step, Table, before, without
from tomebench.report.recommended import as_json as recommendation
from tomebench.report.recommended import counts, loss, plain, ratio, sentence
from tomebench.report.series import interval
from tomebench.words import counted

_OVER, _MORE = "found over it [95%]", "lost more [95%]"
_CHOICE, _ELSEWHERE = "loss in the search [95%]", "loss elsewhere [95%]"
WORDS = ("schedule",)
"""Columns of the table that hold words."""
NARROWER = (
    Step(_CHOICE, "in the search", before(" ["), lost="the interval of the loss in the search"),
    without("GMACs"),
    without("tokens"),
    Step("speed-up [95%]", "speed-up", before(" ["), lost="the interval of the speed-up"),
    without("in the search"),
    Step(_MORE, "lost more", before(" ["), lost="the interval of what is lost more"),
)
"""Steps that make the table narrower, in order."""


def named(each: Candidate) -> str:
    """A finalist by its schedule: ``constant r=8`` or ``list:14,12,8``."""
    row = each.measured.row
    return row.schedule if lists_every_r(row.schedule) else f"{row.schedule} r={row.r}"


def sentences(found: Searched) -> list[str]:
    """What to take, and what the search was good for."""
    chosen = found.answer.chosen
    answer = found.answer
    if chosen is not None:
        answer = dataclasses.replace(answer, chosen=dataclasses.replace(chosen, name=named(chosen)))
    said = [sentence(answer, "search")]
    if found.found is not None and found.facts is not None:
        said += [_against(each, found) for each in found.rivals]
        if found.facts.constant is None:
            said.append("No constant r keeps the limit")
        about = f"{counted(found.facts.tried, 'schedule')} were run on images"
        if found.facts.made:
            about += f", {found.facts.made} of them made by the search"
        said.append(about + ("" if found.facts.over else ", as many as it was to try; --tries more may find more"))
    return said


def _against(rival: Rival, found: Searched) -> str:
    assert found.found is not None
    name = f"{named(rival.candidate)}, the best {rival.name} r"
    if rival.candidate.measured is found.found.measured:
        return f"No schedule that was tried is faster than {named(rival.candidate)} and keeps the limit"
    more = "" if rival.loss is None else f"; its loss differs by {_signed(rival.loss)}"
    if rival.speed is None and found.timed:
        return f"{named(found.found)} and {name} have no valid times of the same rounds{more}"
    if rival.speed is None:
        saved = 100 * (1 - found.found.measured.row.gmacs / rival.candidate.measured.row.gmacs)
        return f"{named(found.found)} takes {saved:.1f} % fewer MACs than {name}{more}"
    speed = f"{rival.speed.value:.2f}x{interval(rival.speed.lo, rival.speed.hi, '.2f')} as fast as {name}"
    unsure = "" if (rival.speed.lo or 0) > 1 else ", not surely faster"
    return f"{named(found.found)} is {speed}{unsure}{more}"


def _signed(each: Estimate) -> str:
    ends = interval(-100 * each.interval.hi, -100 * each.interval.lo, "+.2f")
    return f"{each.drop:+.2f} points{ends}"


def table(found: Searched) -> Table:
    """The schedule that was found, and its rivals."""
    rivals = [each for each in found.rivals if found.found and each.candidate.measured is not found.found.measured]
    rows: list[tuple[str, Candidate, Rival | None]] = [("found", found.found, None)] if found.found else []
    rows += [(named(each.candidate), each.candidate, each) for each in rivals]
    columns = {
        "schedule": [clean(name) for name, _, _ in rows],
        "tokens": [str(each.measured.row.tokens_out) for _, each, _ in rows],
        "GMACs": [f"{each.measured.row.gmacs:.3g}" for _, each, _ in rows],
        "speed-up [95%]": [ratio(each.speed) for _, each, _ in rows],
        _CHOICE: [loss(each.choice, None) for _, each, _ in rows],
        _ELSEWHERE: [loss(each.estimate, None) for _, each, _ in rows],
        _OVER: [ratio(None if rival is None else rival.speed) for _, _, rival in rows],
        _MORE: [loss(None if rival is None else rival.loss, None) for _, _, rival in rows],
    }
    heads = [head for head, cells in columns.items() if {*cells} != {"-"}]
    return heads, [list(cells) for cells in zip(*(columns[head] for head in heads), strict=True)]


def about(found: Searched) -> list[str]:
    """Lines below the table: what its columns mean."""
    what = "agreement with" if found.answer.goal.by_agreement else "top-1 against"
    base = clean(found.answer.base)
    said = [f"loss: points of {what} {base}; the search saw one half of the images only, elsewhere is the other"]
    if found.answer.over is not None:
        said.append(f"speed-ups are over {clean(found.answer.over)}; all schedules took turns in the same rounds")
    if found.found is not None:
        said.append("over it, lost more: the schedule that was found against that of the row, on the images elsewhere")
    return [*said, *map(clean, found.answer.remarks)]


def markdown_text(title: str, found: Searched) -> str:
    """The whole result as markdown."""
    from tomebench.report.tables import markdown_table  # which loads pandas

    parts = [f"# {markdown(title)}", "\n\n".join(f"{markdown(each)}." for each in sentences(found))]
    if found.found is not None:
        parts.append(markdown_table(*table(found), WORDS).rstrip())
    return "\n\n".join([*parts, "\n".join(f"- {markdown(line)}" for line in about(found))]) + "\n"


def as_json(found: Searched) -> dict[str, Any]:
    """The result as plain values."""
    said = sentences(found)
    return {
        **recommendation(found.answer),
        "sentence": said[0],
        "sentences": said,
        "found_schedule": None if found.found is None else {"schedule": named(found.found), **plain(found.found)},
        "beaten": found.beaten,
        "rivals": [
            {
                "name": each.name,
                **plain(each.candidate),
                "found_over_it": None if each.speed is None else list(each.speed),
                "found_loses_more": counts(each.loss),
            }
            for each in found.rivals
        ],
        "search": None if found.facts is None else dataclasses.asdict(found.facts),
    }
