"""Load the configuration of a sweep from YAML files, packaged configurations and flags; errors fit on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tomebench.errors import ConfigError
from tomebench.models.aliases import default_prop_attn
from tomebench.reduction.methods.flags import OPTIONS
from tomebench.reduction.schedule import lists_every_r
from tomebench.runs.setting_values import listed, option_text, option_values
from tomebench.runs.settings import flag, settings
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.yaml_file import read_yaml


def load_config(files: Sequence[Path], flags: Mapping[str, object]) -> SweepConfig:
    """Combine YAML files and flags into one configuration, and validate it.

    Args:
        files: YAML files, or names of packaged configurations; a later one wins.
        flags: field name to value; ``None`` means "not given". They win over the files.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value that does not fit.
        SpecError: an ``r`` or ``schedule`` that cannot be read.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for file in files:
        read = read_yaml(_find(file), list(settings()))
        own = {key: f"config {str(file)!r}: {key.replace('_', '-')}" for key in read}
        _put(read, own, values, sources)
    given = {key: value for key, value in flags.items() if value is not None}
    _put(given, {key: flag(key) for key in given}, values, sources)
    if "prop_attn" not in values and isinstance(values.get("model"), str):
        values["prop_attn"] = default_prop_attn(str(values["model"]))
    if "r" in values and lists_every_r(str(listed(values.get("schedule", "")))):
        raise ConfigError("schedule list:... says every layer's r itself; leave r out")
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
