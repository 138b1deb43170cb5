"""Load the configuration of a sweep from YAML files, packaged configurations and flags; errors fit on one line."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tomebench.errors import ConfigError
from tomebench.models.aliases import default_prop_attn
from tomebench.reduction.methods.flags import OPTIONS
from tomebench.reduction.schedule import lists_every_r
from tomebench.runs.goal import Goal
from tomebench.runs.setting_values import listed, option_text, option_values
from tomebench.runs.setting_values import path as as_path
from tomebench.runs.settings import flag, settings
from tomebench.sweeps.config import SweepConfig, folder_name
from tomebench.sweeps.yaml_file import read_yaml

AXES = tuple(name for name, setting in settings().items() if setting.axis)
"""Settings of which a sweep takes several values, and makes a run of each combination."""
_IN_NAMES = {"img_size": "{}px", "batch_size": "b{}"}
"""Text of such a setting in the name of a folder, where it is more than the value."""


_LIMITS = tuple(field.name for field in dataclasses.fields(Goal))


class Member(NamedTuple):
    """One run of a sweep over several models, input sizes, dtypes or batch sizes."""

    name: str  # of its folder below the parent, by what differs; empty where there is only one run
    config: SweepConfig


def load_config(files: Sequence[Path], flags: Mapping[str, object]) -> SweepConfig:
    """Combine YAML files and flags into one configuration, and validate it.

    Args:
        files: YAML files, or names of packaged configurations; a later one wins.
        flags: field name to value; ``None`` means "not given". They win over the files.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value that does not fit, or several of a setting of
            which this is one run.
        SpecError: an ``r`` or ``schedule`` that cannot be read.
    """
    values, sources = _combined(files, flags)
    if several := [name for name, items in _axes(values).items() if len(items) > 1]:
        raise ConfigError(f"{sources[several[0]]} has several values, of which only sweep and plan make runs; give one")
    return _validated({**values, **{name: items[0] for name, items in _axes(values).items()}}, sources)


def goal_asked(limits: Mapping[str, object]) -> Goal | None:
    """The question about stored runs; None where no limit is given.

    Args:
        limits: settings of sweep by name; None where one is not given.

    Raises:
        ConfigError: a value that is none, or two limits that exclude each other.
    """
    if unknown := [name for name in limits if name not in _LIMITS]:
        raise ConfigError(f"{unknown[0]!r} is no limit of a recommendation; give {', '.join(_LIMITS)}")
    given = {name: value for name, value in limits.items() if value is not None}
    return load_config([], {"model": "stored", **given}).goal if given else None


def load_members(files: Sequence[Path], flags: Mapping[str, object]) -> list[Member]:
    """Combine YAML files and flags into the configuration of every run that they ask for; mostly it is one.

    Where runs differ in model or input size, all have a reference: by default the first model at the first size.

    Args:
        files, flags: as in :func:`load_config`; settings of ``AXES`` may be lists, or texts with commas.

    Raises:
        InputError: as :func:`load_config`.
    """
    values, sources = _combined(files, flags)
    axes = _axes(values)
    several = [name for name, items in axes.items() if len(items) > 1]
    if "model" in several and values.get("checkpoint") is not None:
        raise ConfigError("checkpoint is the weights of one model; give one --model")
    if "model" in several and values.get("class_head") is not None:
        raise ConfigError("class-head reads the features of one model; give one --model")
    if {"model", "img_size"} & {*several} and "model" in axes and values.get("reference") is None:
        size = axes.get("img_size", [None])[0]
        values = {**values, "reference": str(axes["model"][0]) + ("" if size is None else f"@{size}")}
    members = []
    for items in itertools.product(*axes.values()):
        own = dict(zip(axes, items, strict=True))
        name = "-".join(_IN_NAMES.get(axis, "{}").format(own[axis]) for axis in several)
        members.append(Member(name and folder_name(name), _validated({**values, **own}, sources)))
    names = [member.name for member in members]
    return [
        member._replace(name=f"{member.name}-{number}") if names.count(member.name) > 1 else member
        for number, member in enumerate(members, start=1)
    ]


def _axes(values: Mapping[str, object]) -> dict[str, list[object]]:
    """Values of every setting of ``AXES`` that is given, each once.

    Raises:
        ConfigError: one of several is empty.
    """
    found = {}
    for name in (name for name in AXES if values.get(name) is not None):
        value = values[name]
        if isinstance(value, str) and "," in value and not _is_folder(value):
            items: list[object] = [item.strip() for item in value.split(",")]
        else:
            items = list(value) if isinstance(value, list | tuple) else [value]
        if not items or (len(items) > 1 and "" in items):
            raise ConfigError(f"{name.replace('_', '-')} {value!r}: one of its values is empty; leave it out")
        found[name] = list({str(item): item for item in items}.values())
    return found


def _is_folder(model: str) -> bool:
    """Whether a text with a comma is the path of one model."""
    inside = next((model.removeprefix(each) for each in ("local-dir:", "hf/") if model.startswith(each)), None)
    folder = None if inside is None else as_path(inside)
    return isinstance(folder, Path) and folder.is_dir()


def _combined(files: Sequence[Path], flags: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Settings of files and flags by name, not validated; second, what to call each of them in a message."""
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for file in files:
        read = read_yaml(_find(file), list(settings()))
        own = {key: f"config {str(file)!r}: {key.replace('_', '-')}" for key in read}
        _put(read, own, values, sources)
    given = {key: value for key, value in flags.items() if value is not None}
    _put(given, {key: flag(key) for key in given}, values, sources)
    if "r" in values and lists_every_r(str(listed(values.get("schedule", "")))):
        raise ConfigError("schedule list:... says every layer's r itself; leave r out")
    return values, sources


def _validated(values: Mapping[str, object], sources: Mapping[str, str]) -> SweepConfig:
    if "prop_attn" not in values and isinstance(values.get("model"), str):
        values = {**values, "prop_attn": default_prop_attn(str(values["model"]))}
    try:
        return SweepConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, sources)) from error


def _put(
    given: Mapping[str, object], named: Mapping[str, str], values: dict[str, object], sources: dict[str, str]
) -> None:
    """Put the settings of one file, or the flags, over those that are there; an option that is a flag is that flag.

    Args:
        given: settings by name.
        named: what to call each of them in a message.
        values: all settings so far.
        sources: what to call each of those.

    Raises:
        ConfigError: an option is given as a flag, too.
    """
    before = values.get("option")
    values.update(given)
    sources.update(named)
    if given.get("option") is None:
        return
    try:
        options, earlier = (option_values(option_text(each)) for each in (given["option"], before))
    except (ValueError, TypeError):
        return  # its own check says what is wrong
    for name in [name for name in options if name in OPTIONS]:
        if given.get(name) is not None:
            raise ConfigError(f"option {name} is --{name}, which is given, too; write it once")
        values[name], sources[name] = ",".join(options.pop(name)), f"{named['option']} {name}"
    values["option"] = {name: ",".join(texts) for name, texts in {**earlier, **options}.items()}


def packaged_config(name: str) -> Path:
    """The file of a packaged configuration, one that comes with tomebench, such as ``demo``.

    Raises:
        ConfigError: there is none of that name; the message lists all names.
    """
    known = packaged_configs()
    if name not in known:
        raise ConfigError(f"no packaged configuration {name!r}; there are: {', '.join(known)}")
    return known[name]


def packaged_configs() -> dict[str, Path]:
    """All packaged configurations: name, such as ``paper/swag/b_384``, to file; sorted by name."""
    package = Path(__file__).parents[1]
    # A wheel has them inside the package, a source checkout beside it.
    folders = (package / "configs", package.parent / "configs")
    folder = next((f for f in folders if (f / "demo.yaml").is_file()), None)
    if folder is None:
        return {}
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def _find(file: Path) -> Path:
    """Resolve a file name: the file if it exists, else the packaged configuration of that name."""
    if not file.exists() and not file.is_absolute():
        return packaged_configs().get(file.as_posix().removesuffix(".yaml"), file)
    return file


_TYPE_MESSAGES = {
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "path_type": "must be a path",
    "is_instance_of": "must be a path",
}


def _one_line(error: ValidationError, sources: Mapping[str, str]) -> str:
    """First validation error in one line: what is wrong, in which file or flag, and what to do."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    context: Mapping[str, Any] = first.get("ctx", {})
    if first["type"] == "missing":
        return f"no {field} is given; add --{field}, for example --model vit_b_16 (see: tomebench list models)"
    given = first["input"]
    shown = "nothing" if given is None else f"{str(given) if isinstance(given, Path) else given!r:.60}"
    kind = first["type"]
    if kind == "value_error":
        what = str(context["error"])
    elif kind == "literal_error":
        what = f"use {context['expected']}".replace("'", "")
    else:
        what = _TYPE_MESSAGES.get(kind, first["msg"])
    return f"{sources[field]} {shown}: {what}"
