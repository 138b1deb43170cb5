"""Search for a schedule: r of every layer that makes a pass fastest while a loss stays within a limit.

First the best r of whole families (constant, decreasing, inflections); from the best of them on, small changes, each
generation of a few that would be faster. What is faster says a latency staircase of the model on the device, measured
once, or MACs where nothing is timed. What keeps the limit is raced on one half of the images. In the end the schedule
that was found and the best constant and decreasing r are timed in the same rounds and run on the other half.

Every race is a sweep of the same run folder, and what comes next is a function of what is stored there, the staircase
and the seed; so a search that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch

from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, InputError
from tomebench.models.aliases import default_prop_attn
from tomebench.models.create import build_model
from tomebench.reduction.registry import method_class
from tomebench.reduction.schedule import lists_every_r
from tomebench.runs.budget import BUDGETS
from tomebench.runs.database import FILE
from tomebench.runs.settings import default, settings
from tomebench.runs.stairs import BlockTimes
from tomebench.runs.store import Store
from tomebench.schema import fingerprint
from tomebench.sweeps.cells import mac_terms, resolve_sweep
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Note
from tomebench.sweeps.neighbours import Space, propose
from tomebench.sweeps.resume import processes_of
from tomebench.sweeps.search_races import Outcome, Races
from tomebench.sweeps.searching import idle
from tomebench.sweeps.staircase import Staircase, read_staircase, run_staircase, unlike, write_staircase
from tomebench.words import counted

RIVALS = ("constant", "decreasing")
"""Schedules that one is compared with."""
INFLECTIONS = ("inflect:-0.5", "inflect:0.5")
"""Further families from whose best a search starts."""
GENERATION = 8
"""Schedules that are made at a time."""
STAIRCASE = "staircase.json"
"""File of the staircase in the run folder."""
_STAIRS = 256
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
    if any(map(lists_every_r, config.schedules)):
        raise ConfigError("search makes the lists of r itself; give families, such as --schedule constant,inflect:-0.5")
    for name, given in (("until", config.until), ("share", config.share), ("cells", config.cells)):
        if given is not None:
            raise ConfigError(f"a search is one run that says itself what it evaluates; drop --{name}")
    if config.process_count > 1:
        raise ConfigError("search times in one process; take another --budget than publish, and drop --processes")
    if config.end_to_end:
        raise ConfigError("search times passes alone; drop --end-to-end, and sweep what it finds with it")
    if method_class(config.method).trained:
        raise ConfigError(f"the predictors of {config.method} are of one schedule; search with another method")
    for name, asked in (("compile", config.compile), ("cuda-graphs", config.cuda_graphs)):
        if asked and config.budget != "none":
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
        tries: schedules that are made, beyond those of the families; a generation is always whole.
        staircase: of this model, method and device; by default that of the run folder, or else it is measured.

    Raises:
        InputError: as :func:`tomebench.sweeps.run.run_sweep`; or the staircase is another model's or device's.
        Interrupted: ``should_stop()`` became true; the same call goes on.
    """
    if processes_of(directory, config) > 1:
        raise ConfigError(f"{directory} is timed in several processes, and a search in one; use another --out")
    if config.budget == "none" and _is_timed(directory):
        raise ConfigError(f"{directory} is timed, and --budget none goes by MACs; use another --out, or --budget")
    races = Races(config, directory, should_stop)
    yield from races.sweep(["constant"], f"0,{_least(config)}", idle)  # refuses a folder, chooses a batch size
    stairs = None
    if config.budget != "none":
        stairs = yield from _staircase(config, directory, should_stop, staircase)
    space = _space(config, stairs)
    families = [*dict.fromkeys((*RIVALS, *_others(config)))]
    races.begin(space.cost, _question(config, families, stairs), "MACs" if stairs is None else "staircase")
    rivals: dict[str, Outcome | None] = {}
    for schedule in RIVALS:
        rivals[schedule] = kept = yield from races.run([schedule], config.r)
        yield Note(f"{schedule}: " + ("no r keeps the limit" if kept is None else f"r={kept.cell.r} keeps the limit"))
    best = yield from races.run(families, config.r, may_end=True)
    if best is None:
        return
    unit = "fewer MACs" if stairs is None else "as fast by the staircase, without what lies outside the blocks"
    yield Note(_said("the best of the families", best, space, unit))
    known, made = races.of_families(space, families), set[tuple[int, ...]]()
    layers = space.asked(best.resolved.r_layers)
    step, over = max(1, sum(layers) // len(layers) // 3), False
    while (len(made) < tries or races.going_on) and not over:
        lists = propose(
            space,
            space.asked(best.resolved.r_layers),
            step,
            tried={*made, *known},
            rejected=races.rejected(),
            count=GENERATION,
            seed=f"{config.seed}:{len(made)}",
        )
        before = best.cell
        if lists:
            made |= {*lists}
            texts = ["list:" + ",".join(map(str, each)) for each in lists]
            best = (yield from races.run([before.schedule, *texts], f"0,{before.r}", texts)) or best
        if best.cell != before:
            yield Note(_said(f"after {counted(len(made), 'schedule')}", best, space, unit))
        else:
            over, step = step == 1 and not lists, max(1, step // 2)
    yield from races.end(best, rivals, over)


def _least(config: SweepConfig) -> int:
    return min(r for r in config.r_values if r)


def _is_timed(directory: Path) -> bool:
    if not (directory / FILE).exists():
        return False
    with Store.read(directory) as store:
        return bool(store.rounds())


def _others(config: SweepConfig) -> Sequence[str]:
    """Families beside the rivals."""
    return config.schedules if "schedule" in config.model_fields_set else INFLECTIONS


def _question(config: SweepConfig, families: Sequence[str], staircase: Staircase | None) -> str:
    """Digest of all that decides which steps a search takes, besides the images and the model."""
    goes_by = None if staircase is None else fingerprint(staircase.to_json())
    own = {name: value for name, value in config.stored().items() if name not in ("schedule", "r", "budget", "until")}
    return fingerprint([own, dataclasses.asdict(config.goal), [*families], config.r_values, config.seed, goes_by])


def _space(config: SweepConfig, staircase: Staircase | None) -> Space:
    """The schedules of a configuration, by what a staircase says that they cost, or by MACs."""
    loaded = build_model(config.model_spec, meta=True)
    backbone, choice = adapt(loaded.model), config.cell_choices[0]
    terms, method = mac_terms(loaded, backbone), choice.options.method(choice.method)

    def macs(left: Sequence[int]) -> float:
        return terms.gmacs(backbone.tokens, left)

    cost = macs
    if staircase is not None:
        after_mlp, prefix_only = method.after_mlp, config.prefix_only
        cost = BlockTimes(staircase.stairs, backbone.tokens, after_mlp=after_mlp, prefix_only=prefix_only).ms
    return Space(backbone.tokens, backbone.prefix, backbone.depth, method.cap, config.prefix_only, cost)


def _staircase(
    config: SweepConfig, directory: Path, should_stop: Callable[[], bool], given: Staircase | None
) -> Generator[Event, None, Staircase]:
    """The staircase that is given, that of the run folder, or one that is measured now."""
    with Store.read(directory) as store:
        first = store.cells()[0][0]
    one = {"schedule": "constant", "r": f"0,{_least(config)}", "data": None}
    cell = resolve_sweep(config.model_copy(update=one))[-1]
    here = dataclasses.replace(cell.cell, batch_size=first.batch_size, device=first.device)
    threads = config.threads or torch.get_num_threads()
    path = directory / STAIRCASE
    if given is not None:
        if other := unlike(given, here, threads):
            raise ConfigError(f"--staircase is of another {other}; measure one with tomebench staircase --removal")
        return given
    if path.exists() and not unlike(found := read_staircase(path), here, threads):
        return found
    yield Note("no staircase of this model here; it is measured once")
    config = config.model_copy(update={"batch_size": first.batch_size})
    step, rounds = math.ceil(cell.resolved.tokens_in / _STAIRS), BUDGETS[config.budget].min_rounds
    found = yield from run_staircase(config, step, should_stop, removal=True, rounds=rounds)
    write_staircase(path, found)
    return found


def _said(when: str, best: Outcome, space: Space, unit: str) -> str:
    ratio = space.cost([space.tokens] * space.depth) / space.cost(best.resolved.tokens)
    row = best.cell.schedule if lists_every_r(best.cell.schedule) else f"{best.cell.schedule} r={best.cell.r}"
    return f"{when}: {row}, {ratio:.2f}x {unit}"


def saved(config: SweepConfig, schedule: str, r: int) -> str:
    """A configuration that ``tomebench sweep --config`` takes: the model as it was, with one schedule."""
    own = config.model_dump(mode="json")
    kept = {
        name: own[name]
        for name, setting in settings().items()
        if (setting.states == "cell" or name in ("num_classes", "seed"))
        and name not in ("r", "schedule", "prop_attn")
        and own[name] not in (None, default(name))
    }
    if config.prop_attn != default_prop_attn(config.model):
        kept["prop_attn"] = config.prop_attn
    kept["schedule"] = schedule
    if not lists_every_r(schedule):
        kept["r"] = f"0,{r}"
    return "".join(f"{name.replace('_', '-')}: {json.dumps(value, allow_nan=False)}\n" for name, value in kept.items())
