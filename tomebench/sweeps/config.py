"""Configuration of a sweep: a strict, frozen pydantic model of its settings that rejects contradictory ones.

:mod:`tomebench.runs.settings` declares each setting; :mod:`tomebench.sweeps.config_files` reads them from YAML files
and flags.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from tomebench.errors import ConfigError, SpecError
from tomebench.models.aliases import default_prop_attn
from tomebench.models.spec import ModelSpec
from tomebench.reduction.choices import FLAGS, canonical, typed
from tomebench.reduction.methods.flags import OPTIONS, PAPER, Options, choices, flags_of
from tomebench.reduction.registry import method_class, option_defaults, option_names
from tomebench.reduction.schedule import lists_every_r, split_schedules
from tomebench.rspec import format_r, parse_r
from tomebench.runs.budget import PUBLISH_PROCESSES
from tomebench.runs.goal import Goal
from tomebench.runs.setting_values import listed, option_text, option_values
from tomebench.runs.settings import Settings, default, flag, settings
from tomebench.words import counted


class Choice(NamedTuple):
    """What removes the tokens of a cell, and whether attention counts sizes."""

    method: str
    options: Options
    prop_attn: bool  # as asked; a method may leave sizes out of attention all the same


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
            methods = [each.strip() for each in str(listed(given.get("method", default("method")))).split(",")]
            asked = _each_seed(methods, asked)
            values = {name: _canonical(methods, name, texts) for name, texts in asked.items()}
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
    def _one_limit_of_the_loss(self) -> SweepConfig:
        if self.min_agreement is not None and "max_drop" in self.model_fields_set:
            raise ConfigError("max-drop limits a loss by labels, min-agreement without; drop one of them")
        return self

    @model_validator(mode="after")
    def _one_baseline_of_a_race(self) -> SweepConfig:
        if self.against is not None and self.until != "decided":
            raise ConfigError("against says which question stops cells; add --until decided")
        if self.against is not None and (not self.labels or self.process_count > 1):
            raise ConfigError("against counts right answers, in one process; drop --no-labels and --processes")
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
        self._check_options_exist()
        options = [each for method in self.methods for each in self._options(method)]  # raises where one has no effect
        if not self.ablate:
            return self
        if self.until in ("decided", "recommended"):
            raise ConfigError(f"ablate counts every option on the same images; drop --until {self.until}")
        if len(self.methods) > 1:
            raise ConfigError("ablate changes the options of one method; give one --method")
        if missing := [name for name in FLAGS if name not in option_names(method_class(self.method))]:
            raise ConfigError(
                f"ablate changes the options of ToMe, and method {self.method} has no {missing[0]}; drop --method"
            )
        if options != [PAPER]:
            raise ConfigError("ablate changes each option in turn, from the paper's default; leave the options out")
        return self

    @model_validator(mode="after")
    def _trained_methods_have_weights(self) -> SweepConfig:
        trained = [method for method in self.methods if method_class(method).trained]
        if self.predictors is not None and not trained:
            raise ConfigError(f"predictors are weights of a trained method, and {self.method} is none; drop them")
        if self.predictors is None and trained and (lists_every_r(self.schedule) or any(self.r_values)):
            raise ConfigError(
                f"method {trained[0]} needs weights of its own, and is never run with random ones; give --predictors "
                "FILE, which tomebench train-predictors writes"
            )
        return self

    @model_validator(mode="after")
    def _cells_of_a_range(self) -> SweepConfig:
        if self.cells is not None and any(each.startswith("list:") for each in self.schedules):
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
            class_head=self.class_head,
            class_names=self.class_names,
            labelled=self.data is not None and self.labels,
            evaluated=self.data is not None,
            img_size=self.img_size,
            offline=self.offline,
            seed=self.seed,
        )

    @property
    def goal(self) -> Goal:
        """What a recommended row has to keep; max_drop is no limit where another is given and it is not."""
        speed = {"min_speedup": self.min_speedup, "max_latency_ms": self.max_latency_ms}
        limited = self.min_agreement is not None or "max_drop" in self.model_fields_set
        if not limited and any(speed.values()):
            return Goal(**speed)
        if self.min_agreement is not None:
            return Goal(min_agreement=self.min_agreement, **speed)
        limits = Goal(self.max_drop, **speed)
        return limits if self.labels else limits.without_labels()

    @property
    def r_values(self) -> tuple[int, ...]:
        """Every r asked for, in the order given."""
        return parse_r(self.r)

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method asked for, in the order given."""
        return tuple(self.method.split(","))

    @property
    def schedules(self) -> tuple[str, ...]:
        """Every schedule asked for, in the order given."""
        return split_schedules(self.schedule)

    @property
    def cell_choices(self) -> tuple[Choice, ...]:
        """Method, options and proportional attention of the cells of each r; the first is the one to compare with."""
        every = tuple(Choice(name, each, self.prop_attn) for name in self.methods for each in self._options(name))
        if not self.ablate:
            return every
        # Without k_rot, which only rotary models have, and the paper's table has not.
        others = [Options(**{name: value}) for name in OPTIONS for value in choices(name)[1:] if value != "k_rot"]
        changed = [Choice(self.method, each, self.prop_attn) for each in others]
        return (*every, *changed, Choice(self.method, PAPER, not self.prop_attn))

    def _options(self, method: str) -> list[Options]:
        """Every combination of the options asked for that a method has, in the order given.

        Raises:
            SpecError: a combination in which an option has no effect.
        """
        kind, flags, asked = method_class(method), flags_of(method), option_values(self.option)
        defaults = option_defaults(kind)

        def values(name: str) -> list[str] | None:
            return asked.get(f"{method}.{name}") or asked.get(name)

        flagged = [[(name, value) for value in values(name) or str(getattr(self, name)).split(",")] for name in flags]
        others = [
            [(name, typed(kind, name, value)) for value in found]
            for name in sorted({*defaults} - {*OPTIONS})
            if (found := values(name))
        ]
        return [
            Options(**dict(one), more=tuple(each for each in more if each[1] != defaults[each[0]]))  # type: ignore[arg-type]
            for one in itertools.product(*flagged)
            for more in itertools.product(*others)
        ]

    def _check_options_exist(self) -> None:
        """Refuse an option that none of the methods has."""
        several = len(self.methods) > 1
        none_has = f"none of the methods {self.method} has" if several else f"method {self.method} has no"
        for name in OPTIONS:
            if getattr(self, name) != default(name) and not any(name in flags_of(method) for method in self.methods):
                raise SpecError(f"{none_has} {name}; leave {name} out")
        for name in option_values(self.option):
            method, _, option = name.rpartition(".")
            if method and method not in self.methods:
                raise ConfigError(f"--option {name}: {method} is not among the methods asked for; add it to --method")
            asked = (method,) if method else self.methods
            has = dict.fromkeys(own for each in asked for own in (*option_names(method_class(each)), *flags_of(each)))
            if option not in has:
                what = f"none of the methods {self.method} has such an option; they have"
                what = what if len(asked) > 1 else f"method {asked[0]} has no such option; it has"
                raise ConfigError(f"--option {name}: {what} {', '.join(has) or 'none'}")

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
        if lists_every_r(self.schedule):
            return fields  # r of every block is listed, so the setting ``r`` has no effect
        return {**fields, "r": format_r(sorted({0, *self.r_values}))}


def _each_seed(methods: Sequence[str], asked: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Options with ``seeds=5`` written as ``seed=0,1,2,3,4``, where a method has the option seed, and none has seeds.

    Raises:
        ConfigError: it is no number from 1 to 100, or ``seed`` is given, too.
    """
    found = {}
    for name, texts in asked.items():
        method, _, option = name.rpartition(".")
        known = {own for each in methods if method in ("", each) for own in option_names(method_class(each))}
        if option == "seeds" and "seed" in known and option not in known:
            if len(texts) != 1 or not re.fullmatch("[1-9][0-9]?|100", texts[0]):
                raise ConfigError(f"--option {name}={','.join(texts)}: give a number of seeds from 1 to 100")
            name, texts = name.removesuffix("s"), [str(seed) for seed in range(int(texts[0]))]
            if name in asked:
                raise ConfigError(f"--option {name}s is {name} from 0 up; drop one of them")
        found[name] = texts
    return found


def _canonical(methods: Sequence[str], name: str, texts: Sequence[str]) -> list[str]:
    """Values of an option in one way of writing, that of the first of the methods that has it.

    Raises:
        SpecError: one of them is no allowed value, or there is no such method.
    """
    method, _, option = name.rpartition(".")
    kinds = [method_class(each) for each in ([method] if method else methods)]
    kind = next((each for each in kinds if option in option_names(each)), None)
    return list(texts) if kind is None else canonical(kind, option, texts)


def run_directory(config: SweepConfig, models: str = "") -> Path:
    """The run folder: ``out`` as given, else ``results/<name>``, where the name defaults to model and method.

    Args:
        config: of the sweep, or of one of its runs.
        models: all models of a sweep over several, whose parent folder it is.
    """
    part = "" if config.cells is None else f"-cells-{config.cells.replace('/', '-of-')}"
    return config.out or Path("results") / (
        (config.name or folder_name(f"{models or config.model}-{config.method}")) + part
    )


def command_line(stored: Mapping[str, Any]) -> str:
    """The shell command of a sweep, from the settings that :meth:`SweepConfig.stored` gives."""
    words = ["tomebench", "sweep"]
    for name in settings():
        value = stored.get(name, default(name))
        usual = default_prop_attn(str(stored.get("model"))) if name == "prop_attn" else default(name)
        if value is not None and value != usual:
            words += [flag(name, value)] if isinstance(value, bool) else [flag(name), str(value)]
    return shlex.join(words)


def folder_name(text: str) -> str:
    """Text as a readable folder name that every file system accepts."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:80] or "run"
