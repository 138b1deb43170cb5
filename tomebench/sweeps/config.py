"""Configuration of a sweep: a strict, frozen pydantic model of its settings that rejects contradictory ones.

:mod:`tomebench.runs.settings` declares each setting; :mod:`tomebench.sweeps.config_files` reads them from YAML files
and flags.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tomebench.errors import ConfigError, SpecError
from tomebench.models.aliases import default_prop_attn
from tomebench.models.spec import ModelSpec
from tomebench.reduction.choices import FLAGS, canonical, typed
from tomebench.reduction.methods.flags import OPTIONS, PAPER, Options, choices
from tomebench.reduction.registry import method_class, option_defaults, option_names
from tomebench.rspec import format_r, parse_r
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.setting_values import option_text, option_values
from tomebench.runs.settings import Settings, default, flag, settings
from tomebench.schema import Scalar
from tomebench.words import counted


class SweepConfig(Settings, BaseModel):
    """The :class:`~tomebench.runs.settings.Settings` of one sweep, validated, each alone and together."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _written_in_one_way(cls, given: Any) -> Any:
        """Write the values of ``option`` canonically, so that ``2`` and ``02`` are one cell.

        What cannot be read, here or as a name of the method's, is left to the checks that follow.
        """
        if not isinstance(given, dict) or not given.get("option"):
            return given
        try:
            asked = option_values(option_text(given["option"]))
            kind = method_class(given.get("method", default("method")))
            values = {name: canonical(kind, name, texts) for name, texts in asked.items()}
        except (ValueError, TypeError, KeyError, SpecError):
            return given
        if flags := [name for name in asked if name in OPTIONS]:
            raise ConfigError(f"option {flags[0]} is --{flags[0]}; write it so")
        return {**given, "option": {name: ",".join(texts) for name, texts in values.items()}}

    @model_validator(mode="after")
    def _images_are_there(self) -> SweepConfig:
        for name, setting in settings().items():
            value = getattr(self, name)
            if setting.needs and value != default(name) and self.data is None:
                raise ConfigError(f"{setting.needs}; add --data, or drop {flag(name, value)}")
        return self

    @model_validator(mode="after")
    def _labels_are_of_images(self) -> SweepConfig:
        if not self.labels and (self.real is not None or self.class_names is not None):
            name = "real" if self.real is not None else "class-names"
            raise ConfigError(f"{name} is about labels, which --no-labels leaves out; drop one of them")
        if self.use_ema is not None and self.checkpoint is None and not self.model.startswith("local-dir:"):
            raise ConfigError("use-ema is about the weights of a file; add --checkpoint, or drop it")
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
        return self

    @model_validator(mode="after")
    def _stages_can_be_marked(self) -> SweepConfig:
        for name, given in (("compile", self.compile), ("cuda-graphs", self.cuda_graphs)):
            if self.selector and given:
                raise ConfigError(
                    f"selector marks the stages of an eager pass, which --{name} leaves no trace of; drop one of them"
                )
        if self.selector and (self.mode != "infer" or self.budget == "none"):
            other = f"--mode {self.mode}" if self.mode != "infer" else "--budget none"
            raise ConfigError(f"selector times parts of forward passes, and {other} times none; drop one of them")
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
        changed = self.variants != (PAPER,)  # raises for a combination in which an option has no effect
        if self.ablate:
            own = option_names(method_class(self.method))
            if missing := [name for name in FLAGS if name not in own]:
                raise ConfigError(
                    f"ablate changes the options of ToMe, and method {self.method} has no {missing[0]}; drop --method"
                )
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
        """Number of fresh processes that measure speed; 1 is this process, also where nothing is timed."""
        if self.budget == "none":
            return 1
        return self.processes or (PUBLISH_PROCESSES if self.budget == "publish" else 1)

    @property
    def model_spec(self) -> ModelSpec:
        """Model name and the source of its weights."""
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
        """Options and proportional attention of the cells of each r; the first is the one to compare with."""
        if not self.ablate:
            return tuple((each, self.prop_attn) for each in self.variants)
        others = [Options(**{name: value}) for name in OPTIONS for value in choices(name)[1:]]
        return ((PAPER, self.prop_attn), *((each, self.prop_attn) for each in others), (PAPER, not self.prop_attn))

    @property
    def variants(self) -> tuple[Options, ...]:
        """Every combination of the options asked for, in the order given.

        Raises:
            SpecError: a combination in which an option has no effect.
        """
        flags = itertools.product(*(str(getattr(self, name)).split(",") for name in OPTIONS))
        flagged = [dict(zip(OPTIONS, each, strict=True)) for each in flags]
        return tuple(Options(**each, more=more) for each in flagged for more in self._more())  # type: ignore[arg-type]

    def _more(self) -> list[tuple[tuple[str, Scalar], ...]]:
        """Every combination of the method's options that have no flag of their own; defaults are left out."""
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
        """Settings that identify a run, as JSON; :func:`tomebench.sweeps.resume.unlike` compares them on resuming.

        ``r`` is written in its shortest form, sorted and with the baseline 0, so that ``0..2`` and ``2,1`` are one run.
        """
        declared = {name: setting for name, setting in settings().items() if setting.identity}
        fields = self.model_dump(mode="json", include=set(declared))
        fields["processes"] = None if self.process_count == 1 else self.process_count
        for name, setting in declared.items():
            if setting.since > 1 and fields[name] == default(name):
                del fields[name]
        if self.schedule.startswith("list:"):
            return fields  # the schedule lists r for every block, so the setting ``r`` has no effect
        return {**fields, "r": format_r(sorted({0, *self.r_values}))}


def run_directory(config: SweepConfig) -> Path:
    """The run folder: ``out`` as given, else ``results/<name>``, where the name defaults to model and method."""
    part = "" if config.cells is None else f"-cells-{config.cells.replace('/', '-of-')}"
    return config.out or Path("results") / ((config.name or _slug(f"{config.model}-{config.method}")) + part)


def command_line(stored: Mapping[str, Any]) -> str:
    """The shell command of a sweep, from the settings that :meth:`SweepConfig.stored` gives."""
    words = ["tomebench", "sweep"]
    for name in settings():
        value = stored.get(name, default(name))
        usual = default_prop_attn(str(stored.get("model"))) if name == "prop_attn" else default(name)
        if value is not None and value != usual:
            words += [flag(name, value)] if isinstance(value, bool) else [flag(name), str(value)]
    return shlex.join(words)


def _slug(text: str) -> str:
    """Text as a readable folder name that every file system accepts."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:80] or "run"
