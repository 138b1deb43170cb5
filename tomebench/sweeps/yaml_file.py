"""Read one YAML file of settings, strictly: a flat mapping, every key known and given once, errors on one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tomebench.errors import ConfigError
from tomebench.regular import read_bytes

MAX_BYTES = 65536
"""Largest file that is read; a configuration is a page of text."""


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INT: re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}"),
    _FLOAT: re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
"""Numbers of YAML 1.2. In YAML 1.1, PyYAML's, 010 is eight and 1:30 ninety. A longer integer is text."""


class _Loader(yaml.SafeLoader):
    """yaml.safe_load's loader with the numbers of YAML 1.2, without aliases, and each key once.

    An alias can expand a page of text without limit, and of two values for a key yaml.safe_load takes the last.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*) stands for another value; write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            seen: set[Hashable] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node)
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
                seen.add(key)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _NUMBERS]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), list("-+.0123456789"))
_Loader.add_constructor(_INT, _Loader.construct_int)


def read_yaml(path: Path, known: Sequence[str]) -> dict[str, object]:
    """The settings in a file.

    Args:
        path: a YAML file of at most ``MAX_BYTES``.
        known: names of settings, with underscores; the file may write them with dashes.

    Returns:
        Setting, with underscores, to value as YAML reads it.

    Raises:
        ConfigError: not there, not readable, not YAML, not a mapping, or with a key that is unknown or given twice.
    """
    where = f"config {str(path)!r}"
    data = _parse(path, where)
    if data is None:
        raise ConfigError(f"{where} is empty; write settings such as model: vit_b_16")
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is not a mapping; write one setting a line, such as model: vit_b_16")
    values: dict[str, object] = {}
    for key, value in data.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where}: the key {key!r} is not text; put it in quotes, or correct it")
        field = key.replace("-", "_")
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            names = ", ".join(name.replace("_", "-") for name in known)
            hint = f"did you mean {near[0].replace('_', '-')!r}?" if near else f"the settings are {names}"
            raise ConfigError(f"{where}: unknown key {key!r:.60}; {hint}")
        if field in values:
            raise ConfigError(f"{where}: {key!r} is given twice; keep one")
        values[field] = value
    return values


def _parse(path: Path, where: str) -> object:
    try:
        raw = read_bytes(str(path), most=MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror or error}; check the path") from error
    try:
        return yaml.load(raw.decode(), Loader=_Loader)  # a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text; save it as UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply; write one setting a line") from error
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem or "cannot be read as YAML"
        line = f", line {mark.line + 1}" if mark else ""
        if "'\\t'" in problem:
            problem = "YAML does not allow tabs; indent with spaces"
        raise ConfigError(f"{where}{line}: {problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-99-99 and other impossible dates
        raise ConfigError(f"{where} cannot be read as YAML: {' '.join(str(error).split())}") from error
