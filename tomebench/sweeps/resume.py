"""Resume logic: choose the run folder of a sweep, and decide whether the run in a folder can be continued.

A sweep that only asks for more continues a run: another ``--r`` or ``--budget``, more ``--processes``, ``--ceiling``,
``--end-to-end``, more methods, schedules or values of an option add rows or columns to the table. Any other setting
changes what the rows mean, and needs a folder of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tomebench.errors import RunError, SpecError
from tomebench.measure.device import device_name, resolve_device
from tomebench.reduction.choices import canonical, written
from tomebench.reduction.methods.flags import OPTIONS, flags_of
from tomebench.reduction.registry import method_class, option_defaults
from tomebench.reduction.schedule import lists_every_r, split_schedules
from tomebench.rspec import format_r, parse_r
from tomebench.runs import database, lock
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.members import member_runs
from tomebench.runs.records import differences
from tomebench.runs.setting_values import option_text, option_values
from tomebench.runs.settings import default, settings
from tomebench.runs.store import Store
from tomebench.runs.targets import budget_rank
from tomebench.sweeps.config import SweepConfig, run_directory
from tomebench.sweeps.config_files import Member
from tomebench.sweeps.made import code_differences

_GROWS = tuple(name for name, setting in settings().items() if setting.grows)
"""Settings that say how much is measured; a run can be continued with other values of them."""
_NAMED = ("method", "schedule", *OPTIONS)
"""Settings that are lists of names: those of the cells."""
_MORE = tuple(name for name in _GROWS if default(name) is False)
"""Switches among them that add columns and change no other column."""


def choose_folder(config: SweepConfig, *, named: bool | None = None) -> tuple[Path, str | None]:
    """Choose the run folder of a sweep; if it is not the default one, also a line that says why.

    A folder that the user names is taken as it is; :meth:`Store.open` refuses it later if its run has other settings.
    Otherwise it is the first of ``results/NAME``, ``results/NAME-2``, ``results/NAME-3``, ... that is empty or holds a
    run that the sweep can continue.

    Args:
        config: of the sweep.
        named: whether the user names the folder; by default, whether ``out`` or ``name`` is set.

    Raises:
        RunError: one of the folders holds the run of a newer version.
        StorageError: one of the folders holds a damaged run.
    """
    return _free(run_directory(config), config, named, lambda folder: _held(folder, config))


def choose_parent(members: Sequence[Member], *, named: bool | None = None) -> tuple[Path, str | None]:
    """Choose the parent folder of several runs, as :func:`choose_folder` does that of one.

    Raises:
        RunError: the folder that the user names holds a run, or other files and no run below it; or as
            :func:`choose_folder`.
        StorageError: as :func:`choose_folder`.
    """
    models = ",".join(dict.fromkeys(member.config.model for member in members))
    first = members[0].config

    def held(parent: Path) -> str | None:
        if (parent / database.FILE).is_file():
            return "a run"
        if parent.is_file() or _foreign(parent, {each.name for each in members}):
            return "other files"
        return next(filter(None, (_held(parent / each.name, each.config) for each in members)), None)

    folder, remark = _free(run_directory(first, models), first, named, held)
    if (folder / database.FILE).is_file():
        raise RunError(f"{folder} holds a run, and this sweep makes {len(members)} below it; use --out another folder")
    if found := _foreign(folder, {each.name for each in members}):
        raise RunError(f"{folder} holds no runs but other files ({found!r}); use --out an empty or a new folder")
    return folder, remark


def _foreign(parent: Path, members: Collection[str]) -> str | None:
    """First entry of a folder without any run below it that is neither a member's nor a sweep's; None if none is."""
    if not parent.is_dir() or member_runs(parent) != [parent]:
        return None
    return min({each.name for each in parent.iterdir()} - {*members} - database.OWN_FILES - lock.FILES, default=None)


def _free(
    usual: Path, config: SweepConfig, named: bool | None, held: Callable[[Path], str | None]
) -> tuple[Path, str | None]:
    """The usual folder if the user names it or nothing else is held there, else the first free number; and why."""
    named = config.out is not None or config.name is not None if named is None else named
    if named or (what := held(usual)) is None:
        return usual, None
    for number in itertools.count(2):
        folder = usual.with_name(f"{usual.name}-{number}")
        if held(folder) is None:
            return folder, f"{usual} holds {what}; this one is in {folder}"
    raise AssertionError("there is always a next number")


def unlike(store: Store, asked: Mapping[str, Any]) -> list[str]:
    """Settings that keep a sweep from continuing a run, each as ``setting: stored -> asked``; empty if none does.

    A batch size or device that "auto" was resolved to equals the same one given explicitly.

    Args:
        store: of the run.
        asked: settings of the sweep, :meth:`tomebench.sweeps.config.SweepConfig.stored`.
    """
    before, now = dict(store.config), dict(asked)
    if isinstance(now.get("batch_size"), int) and store.get("batch_size") == now["batch_size"]:
        before["batch_size"] = now["batch_size"]
    cells = store.cells()
    if cells and "device" in now:
        before["device"], now["device"] = cells[0][0].device, _device(now["device"])
    found = differences(*({k: v for k, v in each.items() if k not in _GROWS} for each in (before, now)))
    if ("until" in before) != ("until" in now):  # one is in the listed order, the other in a random one
        found += differences(*({"until": each.get("until")} for each in (before, now)))
    # ``--cells`` splits the values of one r setting, which must stay as it is.
    if before.get("cells") or now.get("cells"):
        found += differences({"r": before.get("r")}, {"r": now.get("r")})
    names = _names(before, now)
    # The cells of both form no full grid of schedule, r, method and options, which no settings describe.
    if _grid(merged(before, now)) != _grid(before) | _grid(now):
        differing = [name for name in names if _values(before, name) != _values(now, name)]
        found += differences(*({name: ",".join(_values(each, name)) for name in differing} for each in (before, now)))
    return found


def covers(store: Store, asked: Mapping[str, Any]) -> bool:
    """Whether a run by this code already covers what a sweep asks for: cells, columns, budget and other settings.

    Args:
        store: of the run.
        asked: settings of the sweep, :meth:`tomebench.sweeps.config.SweepConfig.stored`.
    """
    if unlike(store, asked) or code_differences(store):
        return False
    before, both = store.config, merged(store.config, asked)
    more = ("budget", "processes", "until", *_MORE)
    return _grid(both) == _grid(before) and all(both.get(name) == before.get(name) for name in more)


def merged(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run once a sweep continues it: the cells and columns of both, the larger budget.

    Args:
        stored: settings of the run.
        asked: settings of the sweep, for which :func:`unlike` finds no difference.
    """
    both = dict(stored)
    names = _names(stored, asked)
    values = {name: ",".join(dict.fromkeys([*_values(stored, name), *_values(asked, name)])) for name in names}
    both |= {name: values[name] for name in _NAMED if "," in values[name] or name in both}
    if more := {name: values[name] for name in names if name not in _NAMED and values[name]}:
        both["option"] = option_text(more)
    if r := {*_r(stored), *_r(asked)}:
        both["r"] = format_r(sorted(r))
    both |= {"until": asked["until"]} if "until" in asked else {}
    both["budget"] = max((str(each.get("budget")) for each in (stored, asked)), key=budget_rank)
    if (count := max(each.get("processes", 1) for each in (stored, asked))) > 1:
        both["processes"] = max(count, PUBLISH_PROCESSES) if both["budget"] == "publish" else count
    return both | {name: True for name in _MORE if asked.get(name)}


def processes_of(folder: Path, config: SweepConfig) -> int:
    """Number of fresh processes in which a sweep times its cells in a folder; at least that of the run there.

    Args:
        folder: of the run, which may not be there yet.
        config: of the sweep.
    """
    if config.budget == "none" or not (folder / database.FILE).is_file():
        return config.process_count
    with Store.read(folder) as store:
        if not store.has_results or unlike(store, config.stored()):
            return config.process_count
        return int(merged(store.config, config.stored()).get("processes", 1))


def _held(folder: Path, config: SweepConfig) -> str | None:
    """Why a sweep cannot continue in a folder (other files, settings or code); None if it can."""
    if not (folder / database.FILE).is_file():
        names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        return "other files" if folder.is_file() or names - database.OWN_FILES - lock.FILES else None
    with Store.read(folder) as store:
        if not store.has_results:
            return None
        if settings := unlike(store, config.stored()):
            return f"a run with other settings ({', '.join(settings[:3])})"
        found = code_differences(store)
        return f"a run of other code or libraries ({found})" if found else None


def _device(asked: str) -> str:
    return device_name(resolve_device("auto")) if asked == "auto" else asked.removesuffix(":0")


def _names(*settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are lists, followed by the options without a flag that are set anywhere."""
    more = {name for each in settings for name in option_values(each.get("option"))}
    return [*_NAMED, *sorted(more)]


def _values(settings: Mapping[str, Any], name: str) -> list[str]:
    """Values of a setting that is a list, or of an option; none where no method of the settings has the option."""
    if name == "schedule":
        return list(split_schedules(str(settings.get(name, default(name)))))
    if name in _NAMED:
        return str(settings.get(name, default(name))).split(",")
    one, _, option = name.rpartition(".")
    methods = _values(settings, "method")
    found = [_own(settings, method).get(option, []) for method in methods if one in ("", method)]
    return list(dict.fromkeys(value for values in found for value in values))


def _own(settings: Mapping[str, Any], method: str) -> dict[str, list[str]]:
    """Values of every option that a method has, and of those given that no method has: a run of other code has them."""
    given, usual = option_values(settings.get("option")), _usual(method)
    elsewhere = {name for each in _values(settings, "method") for name in _usual(each)}
    unknown = {name: values for name, values in given.items() if "." not in name and name not in elsewhere}

    def values(name: str) -> list[str]:
        asked = given.get(f"{method}.{name}") or given.get(name)
        if not asked:
            return str(settings.get(name, usual[name])).split(",")
        try:
            return canonical(method_class(method), name, asked)
        except (KeyError, SpecError):  # of a run of other code, which is refused as such
            return asked

    return {name: values(name) for name in usual} | unknown


def _usual(method: str) -> dict[str, str]:
    """Default of every option of a method, as written; none of one that only other code has."""
    try:
        defaults = option_defaults(method_class(method)) | {name: default(name) for name in flags_of(method)}
    except SpecError:
        return {}
    return {name: written(value) for name, value in defaults.items()}


def _r(settings: Mapping[str, Any]) -> tuple[int, ...]:
    if lists_every_r(str(settings.get("schedule", ""))):  # r of every block is listed, so the setting has no effect
        return ()
    return parse_r(str(settings.get("r", default("r"))))


def _grid(settings: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """Schedule, r, method and options of every cell except r = 0, at which they have no effect."""
    some_r = [r for r in _r(settings) if r]
    shapes = [
        (schedule, r)
        for schedule in _values(settings, "schedule")
        for r in ([None] if schedule.startswith("list:") else some_r)
    ]
    own = [
        (method, tuple(zip(options, values, strict=True)))
        for method in _values(settings, "method")
        for options in [_own(settings, method)]
        for values in itertools.product(*options.values())
    ]
    return {*itertools.product(shapes, own)}
