"""What a sweep is asked to do: one strict, frozen model, filled from defaults, YAML files and command line flags.

The fields are the flags: ``batch_size`` here is ``--batch-size`` on the command line and ``batch-size`` (or
``batch_size``) in YAML. A flag wins over YAML, a later file over an earlier one, anything over the default, and this is
the only place where defaults live.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tomebench.datasets.classes import MOST_CLASSES
from tomebench.errors import ConfigError
from tomebench.models.aliases import default_prop_attn
from tomebench.models.spec import ModelSpec
from tomebench.reduction.choices import typed
from tomebench.reduction.methods.flags import OPTIONS, PAPER, Options, choices
from tomebench.reduction.registry import method_class, option_defaults
from tomebench.rspec import format_r, parse_r
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.schema import MAX_DROP, Route, Scalar
from tomebench.sweeps.values import (
    FilePath,
    Text,
    checked_batch_size,
    checked_cells,
    checked_device,
    checked_max_drop,
    checked_name,
    checked_r,
    checked_schedule,
    choice,
    digits_to_int,
    option_text,
    option_values,
    path_text,
    r_text,
)
from tomebench.words import counted

NOT_IDENTITY = frozenset({"out", "name", "workers", "offline", "cache", "verify", "max_drop"})
"""Fields that may change between two runs of one folder: they cannot change a result."""
_YOUNGER = (
    "attention",
    "prefix_only",
    "compile",
    "cuda_graphs",
    "mode",
    "ceiling",
    "end_to_end",
    "processes",
    "cells",
    "real",
    "allow_missing",
    "ablate",
    "preprocessing",
    "use_ema",
    "num_classes",
    "class_names",
    "labels",
    "option",
    *OPTIONS,
)
"""Fields that the first stores did not have: at their defaults they are left out, so that those runs go on."""


class SweepConfig(BaseModel):
    """Everything a sweep can be asked, validated; see ``tomebench sweep --help`` for what each field does."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    model: Text
    checkpoint: FilePath | None = None
    use_ema: bool | None = None
    num_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None
    class_names: Annotated[Text, BeforeValidator(path_text)] | None = None
    img_size: Annotated[int, Field(ge=1, le=8192)] | None = None
    preprocessing: Literal["timm", "tome"] = "timm"
    r: Annotated[str, BeforeValidator(r_text), AfterValidator(checked_r)] = "0..24"
    schedule: Annotated[str, AfterValidator(checked_schedule)] = "constant"
    method: Text = "tome"
    prop_attn: bool = True
    metric: choice("metric") = PAPER.metric  # type: ignore[valid-type]
    heads: choice("heads") = PAPER.heads  # type: ignore[valid-type]
    distance: choice("distance") = PAPER.distance  # type: ignore[valid-type]
    combine: choice("combine") = PAPER.combine  # type: ignore[valid-type]
    partition: choice("partition") = PAPER.partition  # type: ignore[valid-type]
    matching: choice("matching") = PAPER.matching  # type: ignore[valid-type]
    option: Annotated[str | None, BeforeValidator(option_text)] = None
    ablate: bool = False
    attention: Route = "auto"
    prefix_only: bool = False
    data: Annotated[Text, BeforeValidator(path_text)] | None = None
    labels: bool = True
    limit: Annotated[int, Field(ge=1)] | None = None
    real: FilePath | None = None
    allow_missing: Annotated[int, Field(ge=0)] = 0
    verify: FilePath | None = None
    device: Annotated[str, AfterValidator(checked_device)] = "auto"
    dtype: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    batch_size: Annotated[int | str, BeforeValidator(digits_to_int), AfterValidator(checked_batch_size)] = "auto"
    mode: Literal["infer", "train"] = "infer"
    compile: bool = False
    cuda_graphs: bool = False
    ceiling: bool = False
    end_to_end: bool = False
    budget: Literal["quick", "standard", "publish", "none"] = "quick"
    processes: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_drop: Annotated[float, AfterValidator(checked_max_drop)] = MAX_DROP
    cells: Annotated[str, AfterValidator(checked_cells)] | None = None
    out: FilePath | None = None
    name: Annotated[Text, AfterValidator(checked_name)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    cache: FilePath | None = None
    offline: bool = False

    @model_validator(mode="before")
    @classmethod
    def _flags_of_tome(cls, given: Any) -> Any:
        """``option`` with the name of a flag is that flag."""
        if not isinstance(given, dict) or not given.get("option"):
            return given
        try:
            options = option_values(str(option_text(given["option"])))
        except ValueError:
            return given  # which its own check says
        for name in OPTIONS:
            if name in options:
                if name in given:
                    raise ConfigError(f"option {name} is --{name}, which is given, too; write it once")
                given = {**given, name: ",".join(options.pop(name))}
        return {**given, "option": {name: ",".join(values) for name, values in options.items()}}

    @model_validator(mode="after")
    def _limit_needs_data(self) -> SweepConfig:
        if self.limit is not None and self.data is None:
            raise ConfigError("limit is a number of images, but there are none; add --data, or drop --limit")
        return self

    @model_validator(mode="after")
    def _checks_need_data(self) -> SweepConfig:
        for name, given in (("real", self.real), ("allow-missing", self.allow_missing), ("verify", self.verify)):
            if given and self.data is None:
                raise ConfigError(f"{name} is about images, but there are none; add --data, or drop --{name}")
        return self

    @model_validator(mode="after")
    def _labels_are_of_images(self) -> SweepConfig:
        if not self.labels and self.data is None:
            raise ConfigError("no-labels is about pictures, but there are none; add --data, or drop --no-labels")
        if not self.labels and (self.real is not None or self.class_names is not None):
            name = "real" if self.real is not None else "class-names"
            raise ConfigError(f"{name} is about labels, which --no-labels leaves out; drop one of them")
        if self.use_ema is not None and self.checkpoint is None and not self.model.startswith("local-dir:"):
            raise ConfigError("use-ema is about the weights of a file; add --checkpoint, or drop it")
        return self

    @model_validator(mode="after")
    def _end_to_end_needs_data(self) -> SweepConfig:
        if self.end_to_end and self.data is None:
            raise ConfigError("end-to-end speed includes reading images; add --data, or drop --end-to-end")
        return self

    @model_validator(mode="after")
    def _training_is_speed_only(self) -> SweepConfig:
        if self.mode == "train" and self.data is not None:
            raise ConfigError(
                "mode train measures the speed of a training step, not top-1; drop --data, or --mode train"
            )
        if self.mode == "train" and self.cuda_graphs:
            raise ConfigError("CUDA graphs replay forward passes only; drop --cuda-graphs, or --mode train")
        return self

    @model_validator(mode="after")
    def _something_is_measured(self) -> SweepConfig:
        if self.budget == "none" and self.data is None:
            raise ConfigError("budget none times nothing and there are no images; add --data, or another --budget")
        if self.budget == "none" and self.end_to_end:
            raise ConfigError("budget none times nothing; drop --end-to-end, or give another --budget")
        if self.cache is not None and self.data is None:
            raise ConfigError("cache keeps preprocessed images, but there are none; add --data, or drop --cache")
        return self

    @model_validator(mode="after")
    def _processes_are_timed(self) -> SweepConfig:
        if self.budget == "publish" and self.process_count < PUBLISH_PROCESSES:
            raise ConfigError(
                f"budget publish needs at least {counted(PUBLISH_PROCESSES, 'process')}: what differs between them "
                "is in no interval of one; drop --processes, or take another --budget"
            )
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> SweepConfig:
        changed = self.variants != (PAPER,)  # raises where two options mean nothing together
        if self.ablate and changed:
            raise ConfigError("ablate changes each option in turn, from the paper's default; leave the options out")
        return self

    @model_validator(mode="after")
    def _cells_of_a_range(self) -> SweepConfig:
        if self.cells is not None and self.schedule.startswith("list:"):
            raise ConfigError("cells deals out the values of r, and schedule list:... has one; drop --cells")
        return self

    @property
    def process_count(self) -> int:
        """Fresh processes in which the speed is measured; 1 is this one, also where nothing is timed."""
        if self.budget == "none":
            return 1
        return self.processes or (PUBLISH_PROCESSES if self.budget == "publish" else 1)

    @property
    def model_spec(self) -> ModelSpec:
        """The model with its weights."""
        return ModelSpec(
            self.model,
            checkpoint=self.checkpoint,
            use_ema=self.use_ema,
            num_classes=self.num_classes,
            class_names=self.class_names,
            labelled=self.data is not None and self.labels,
            img_size=self.img_size,
            offline=self.offline,
            seed=self.seed,
        )

    @property
    def r_values(self) -> tuple[int, ...]:
        """Every r asked for, in the order given."""
        return parse_r(self.r)

    @property
    def cell_choices(self) -> tuple[tuple[Options, bool], ...]:
        """Options and proportional attention of the cells of each r, the one that others are compared with first."""
        if not self.ablate:
            return tuple((each, self.prop_attn) for each in self.variants)
        others = [Options(**{name: value}) for name in OPTIONS for value in choices(name)[1:]]
        return ((PAPER, self.prop_attn), *((each, self.prop_attn) for each in others), (PAPER, not self.prop_attn))

    @property
    def variants(self) -> tuple[Options, ...]:
        """Every combination of the options asked for, in the order given.

        Raises:
            SpecError: one in which an option means nothing.
        """
        flags = itertools.product(*(str(getattr(self, name)).split(",") for name in OPTIONS))
        flagged = [dict(zip(OPTIONS, each, strict=True)) for each in flags]
        return tuple(Options(**each, more=more) for each in flagged for more in self._more())  # type: ignore[arg-type]

    def _more(self) -> list[tuple[tuple[str, Scalar], ...]]:
        """Every combination of the method's options that are no flags, those at their default left out."""
        if not self.option:
            return [()]
        kind, asked = method_class(self.method), option_values(self.option)
        defaults = option_defaults(kind)
        if unknown := [name for name in asked if name not in defaults]:
            has = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise ConfigError(f"--option {unknown[0]}: method {self.method} has no such option; {has}")
        named = [[(name, typed(kind, name, value)) for value in values] for name, values in asked.items()]
        return [tuple(each for each in one if each[1] != defaults[each[0]]) for one in itertools.product(*named)]

    def stored(self) -> dict[str, Any]:
        """The settings that identify a run, as JSON: a run folder is resumed if and only if these are equal.

        ``r`` is written in its shortest form, sorted and with the baseline 0, so that ``0..2`` and ``2,1`` are one run.
        """
        fields = self.model_dump(mode="json", exclude=set(NOT_IDENTITY))
        fields["processes"] = None if self.process_count == 1 else self.process_count
        for name in _YOUNGER:
            if fields[name] == SweepConfig.model_fields[name].default:
                del fields[name]
        if self.schedule.startswith("list:"):
            return fields  # r says nothing there and stays at its default
        return {**fields, "r": format_r(sorted({0, *self.r_values}))}


def run_directory(config: SweepConfig) -> Path:
    """The run folder: ``out`` as given, else ``results/<name>``, where the name defaults to model and method."""
    part = "" if config.cells is None else f"-cells-{config.cells.replace('/', '-of-')}"
    return config.out or Path("results") / ((config.name or _slug(f"{config.model}-{config.method}")) + part)


def command_line(stored: Mapping[str, Any]) -> str:
    """The command that runs the sweep of a configuration, from :meth:`SweepConfig.stored`."""
    words = ["tomebench", "sweep"]
    for name, field in SweepConfig.model_fields.items():
        value = stored.get(name, field.default)
        default = default_prop_attn(str(stored.get("model"))) if name == "prop_attn" else field.default
        if value is None or value == default:
            continue
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join(words)


def _slug(text: str) -> str:
    """A folder name that is safe everywhere and still readable."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:80] or "run"
