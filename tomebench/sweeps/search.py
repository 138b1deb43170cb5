"""Search for a schedule: r of every layer that makes a pass fastest while a loss stays within a limit.

First the best r of whole families (constant, decreasing, inflections); from the best of them on, small changes, each
generation of a few that would be faster. What is faster says a latency staircase of the model on the device, measured
once, or MACs where nothing is timed. What keeps the limit is raced on one half of the images. In the end the schedule
that was found and the best constant and decreasing r are timed in the same rounds and run on the other half.

Every race is a sweep of the same run folder, and what comes next is a function of what is stored there, the staircase
and the seed; so a search that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, InputError
from tomebench.identity import code_digest
from tomebench.models.create import build_model
from tomebench.runs.budget import BUDGETS
from tomebench.runs.search_facts import SearchFacts
from tomebench.runs.settings import default, settings
from tomebench.runs.stairs import BlockTimes
from tomebench.runs.store import Store
from tomebench.schema import Cell
from tomebench.sweeps.cells import mac_terms
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Estimate, Event, Finished, Note, Planned
from tomebench.sweeps.neighbours import Space, propose
from tomebench.sweeps.run import run_sweep
from tomebench.sweeps.searching import Outcome, choosing, estimating, outcome_of
from tomebench.sweeps.staircase import Staircase, read_staircase, removal_of, run_staircase, write_staircase
from tomebench.words import counted

RIVALS = ("constant", "decreasing")
"""Schedules that one is compared with."""
INFLECTIONS = ("inflect:-0.5", "inflect:0.5")
"""Further families from whose best a search starts."""
GENERATION = 8
"""Schedules of one generation."""
STAIRCASE = "staircase.json"
"""File of the staircase in the run folder."""
_STAIRS = 100
"""Numbers of tokens that are timed at most, about; between them times are interpolated."""


def check_search(config: SweepConfig, tries: int) -> None:
    """Check that a configuration is one of a search.

    Raises:
        ConfigError: it asks for something that a search does not do.
    """
    if config.data is None:
        raise ConfigError("search counts what is lost, and there are no images; add --data")
    if not config.goal.limits_loss or config.min_speedup is not None or config.max_latency_ms is not None:
        raise ConfigError("search looks for the fastest within a loss; give --max-drop or --min-agreement, and no more")
    if len(config.cell_choices) > 1 or config.ablate:
        raise ConfigError("search is about one method with one set of options; give one of each")
    if any(each.startswith("list:") for each in config.schedules):
        raise ConfigError("search makes the lists of r itself; give families, such as --schedule constant,inflect:-0.5")
    for name, given in (("until", config.until), ("share", config.share), ("cells", config.cells)):
        if given is not None:
            raise ConfigError(f"a search is one run that says itself what it evaluates; drop --{name}")
    if config.process_count > 1:
        raise ConfigError("search times in one process; drop --processes, and sweep what it finds with them")
    for name, eager in (("compile", not config.compile), ("cuda-graphs", not config.cuda_graphs)):
        if not eager and config.budget != "none":
            raise ConfigError(f"search times blocks alone, eagerly, which --{name} has no part in; drop it")
    if not any(config.r_values):
        raise ConfigError("search needs values of r to start from; give --r 0..24")
    if tries < 0:
        raise InputError(f"--tries {tries}: give a whole number from 0")


def run_search(
    config: SweepConfig,
    directory: Path,
    should_stop: Callable[[], bool],
    *,
    tries: int,
    staircase: Staircase | None = None,
) -> Generator[Event, None, None]:
    """Search; what was found is in the run folder, see :class:`~tomebench.runs.search_facts.SearchFacts`.

    Args:
        config: of the search, which :func:`check_search` has accepted.
        directory: run folder; created, or gone on with.
        should_stop: asked between two bursts, and between two cells of an evaluated batch.
        tries: schedules that are made at most, beyond those of the families.
        staircase: of this model, method and device; by default that of the run folder, or else it is measured.

    Raises:
        InputError: as :func:`tomebench.sweeps.run.run_sweep`; or the staircase is another model's or device's.
        Interrupted: ``should_stop()`` became true; the same call goes on.
    """
    space = _space(config)
    said: set[str] = set()

    def race(schedules: Sequence[str], r: str, cost: Callable[[Sequence[int]], float]) -> Generator[Event, None, None]:
        settings = {"schedule": ",".join(schedules), "r": r, "until": "recommended", "budget": "none"}
        asked = config.model_copy(update=settings)
        yield from _new(run_sweep(asked, directory, should_stop, boards=choosing(cost)), said)

    rivals: dict[str, Outcome | None] = {}
    for schedule in RIVALS:
        yield from race([schedule], config.r, space.cost)
        rivals[schedule] = kept = _kept(outcome_of(directory))
        yield Note(f"{schedule}: " + ("no r keeps the limit" if kept is None else f"r={kept.cell.r} keeps the limit"))
    if config.budget != "none":
        space = _space(config, (yield from _staircase(config, directory, should_stop, staircase)))
    others: Sequence[str] = INFLECTIONS
    if "schedule" in config.model_fields_set:
        others = [each for each in config.schedules if each not in RIVALS]
    best = max(
        (each for each in rivals.values() if each is not None),
        key=lambda each: -space.cost(each.resolved.tokens),
        default=None,
    )
    yield from race([*RIVALS, *others], config.r, space.cost)
    best = _kept(outcome_of(directory)) or best
    if best is None:
        return
    yield Note(_said("the best of the families", best, space))
    made: set[tuple[int, ...]] = set()
    step, over = max(1, sum(best.resolved.r_layers) // len(best.resolved.r_layers) // 3), False
    while len(made) < tries and not over:
        lists = propose(
            space,
            best.resolved.r_layers,
            step,
            tried={*made, best.resolved.r_layers},
            rejected=best.rejected,
            count=min(GENERATION, tries - len(made)),
            seed=f"{config.seed}:{len(made)}",
        )
        before = best.cell
        if lists:
            made |= {*lists}
            texts = ["list:" + ",".join(map(str, each)) for each in lists]
            yield from race([before.schedule, *texts], f"0,{before.r}", space.cost)
            best = _kept(outcome_of(directory)) or best
        if best.cell != before:
            yield Note(_said(f"after {counted(len(made), 'schedule')}", best, space))
        else:
            over, step = step == 1 and not lists, max(1, step // 2)
    facts = SearchFacts(
        best.cell.key,
        constant=_key(rivals["constant"]),
        decreasing=_key(rivals["decreasing"]),
        made=len(made),
        tried=best.tried,
        by="MACs" if config.budget == "none" else "staircase",
        over=over,
    )
    ended = [each for each in (best, *rivals.values()) if each is not None]
    asked = config.model_copy(
        update={
            "schedule": ",".join(dict.fromkeys(each.cell.schedule for each in ended)),
            "r": ",".join(map(str, sorted({0, *(each.cell.r for each in ended if not _is_list(each.cell))}))),
            "until": "recommended",
        }
    )
    finalists = {each.cell.key: each.found for each in ended}
    yield from _new(run_sweep(asked, directory, should_stop, boards=estimating(finalists, facts)), said)


def _space(config: SweepConfig, staircase: Staircase | None = None) -> Space:
    """The schedules of a configuration, by what a staircase says that they cost, or by MACs."""
    loaded = build_model(config.model_spec, meta=True)
    backbone, choice = adapt(loaded.model), config.cell_choices[0]
    terms, method = mac_terms(loaded, backbone), choice.options.method(choice.method)

    def macs(left: Sequence[int]) -> float:
        return terms.gmacs(backbone.tokens, left)

    cost, unit = macs, "fewer MACs"
    if staircase is not None:
        times = BlockTimes(staircase.stairs, backbone.tokens, after_mlp=method.after_mlp)
        cost, unit = times.ms, "as fast by the staircase, without what lies outside the blocks"
    return Space(backbone.tokens, backbone.prefix, backbone.depth, method.cap, config.prefix_only, cost, unit)


def _staircase(
    config: SweepConfig, directory: Path, should_stop: Callable[[], bool], given: Staircase | None
) -> Generator[Event, None, Staircase]:
    """The staircase that is given, that of the run folder, or one that is measured now."""
    with Store.read(directory) as store:
        cell, resolved = next((cell, r) for cell, r in store.cells() if not cell.is_baseline)
    path = directory / STAIRCASE
    if given is not None:
        if other := _unlike(given, cell):
            raise ConfigError(f"--staircase is of another {other}; measure one with tomebench staircase --removal")
        return given
    if path.exists() and not _unlike(found := read_staircase(path), cell):
        return found
    yield Note("no staircase of this model here; it is measured once")
    config = config.model_copy(update={"batch_size": cell.batch_size})
    step, rounds = max(1, resolved.tokens_in // _STAIRS), BUDGETS[config.budget].min_rounds
    found = yield from run_staircase(config, step, should_stop, removal=True, rounds=rounds)
    write_staircase(path, found)
    return found


def _unlike(staircase: Staircase, cell: Cell) -> str:
    """How a staircase is not of a cell; empty if it is."""
    facts = ("model", "img_size", "batch_size", "dtype", "device", "attention")
    here = {name: getattr(cell, name) for name in facts} | {"removal": removal_of(cell)}
    differing = (f"{name} ({getattr(staircase, name) or 'none'}, not {value})" for name, value in here.items()
                 if getattr(staircase, name) != value)  # fmt: skip
    return next(differing, "" if staircase.code == code_digest() else "version of tomebench")


def _kept(outcome: Outcome | None) -> Outcome | None:
    """An outcome whose cell keeps the limit."""
    return None if outcome is None or outcome.found == "beyond" else outcome


def _is_list(cell: Cell) -> bool:
    return cell.schedule.startswith("list:")


def _key(outcome: Outcome | None) -> str | None:
    return None if outcome is None else outcome.cell.key


def _said(when: str, best: Outcome, space: Space) -> str:
    plain = space.cost([space.tokens] * space.depth)
    ratio = plain / space.cost(best.resolved.tokens)
    row = best.cell.schedule if _is_list(best.cell) else f"{best.cell.schedule} r={best.cell.r}"
    return f"{when}: {row}, {ratio:.2f}x {space.unit}"


def _new(events: Iterator[Event], said: set[str]) -> Iterator[Event]:
    """Events of one of several sweeps: only what was not said, and neither its plan nor its end."""
    for event in events:
        if isinstance(event, Planned | Finished | Estimate):
            continue
        if isinstance(event, Note):
            if event.text in said:
                continue
            said.add(event.text)
        yield event


def saved(config: SweepConfig, schedule: str, r: int) -> str:
    """A configuration that ``tomebench sweep --config`` takes: the model as it was, with one schedule."""
    own = config.model_dump(mode="json")
    kept = {
        name: own[name]
        for name, setting in settings().items()
        if setting.states == "cell" and name not in ("r", "schedule") and own[name] not in (None, default(name))
    }
    kept["schedule"] = schedule
    if not schedule.startswith("list:"):
        kept["r"] = f"0,{r}"
    return "".join(f"{name.replace('_', '-')}: {json.dumps(value, allow_nan=False)}\n" for name, value in kept.items())
