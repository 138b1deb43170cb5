"""The settings of a sweep, each declared once: type, default, help, validation, and its role in a stored run.

An attribute of :class:`Settings` is a flag, a key in YAML and a keyword in Python: ``batch_size`` is ``--batch-size``
on the command line and ``batch-size`` (or ``batch_size``) in YAML. Its :class:`Setting` declares the rest. Derived from
here are the flags and their help, the settings that a run folder stores, the protocol hash, and the refusal of settings
that need images. Importing this needs neither torch nor pydantic, as ``--help`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tomebench.reduction.methods.flags import PAPER, choices
from tomebench.runs import setting_values as values
from tomebench.runs.facets import Setting
from tomebench.vocabulary import MAX_DROP, MOST_CLASSES, Rope, Route


def _option_of_tome(name: str, help: str) -> Any:
    """Declare an option of ToMe that is a flag."""
    return Setting(help, "NAMES", "Method", check=values.choice(name), states="cell", grows=True)


class Settings:
    """All settings of a sweep, in the order of its help."""

    # fmt: off
    model: Annotated[str, Setting(
        "Alias or timm id (tomebench list models), hf-hub:ORG/NAME, local-dir:PATH, hf/FOLDER or hf/ORG/NAME.",
        "NAMES", "Model", often=True, check=values.text, axis=True, since=1, states="cell")]
    checkpoint: Annotated[Path | None, Setting("Weights: safetensors or a pickle, in shards or not; or their folder.",
        "FILE", "Model", often=True, read=values.path, since=1, states="cell")] = None
    use_ema: Annotated[bool | None, Setting("Which weights of a checkpoint that has averaged ones, too.", None, "Model",
        shown="no-use-ema", states="cell")] = None
    num_classes: Annotated[int | None, Setting("Outputs of the head.", "N", "Model", shown="those of the weights",
        check=values.between(1, MOST_CLASSES))] = None
    class_head: Annotated[Path | None, Setting("Class head: a file of embed-classes or fit-head.", "FILE",
        "Model", read=values.path, states="cell")] = None
    class_names: Annotated[str | None, Setting("Class names in the order of the head: a file, or sorted, or natural.",
        "FILE", "Model", often=True, shown="what comes with the weights", read=values.path_text, check=values.text,
        states="images")] = None
    img_size: Annotated[int | None, Setting("Input height and width.", "PIXELS", "Model", often=True,
        shown="the model's own", read=values.digits_to_int, check=values.between(1, 8192), axis=True, since=1,
        states="cell")] = None
    preprocessing: Annotated[Literal["timm", "tome"], Setting(
        "Resize and crop: timm, as the weights say; or tome, to 256/224 of the input size.", "NAME", "Model",
        states="cell")] = "timm"
    r: Annotated[str, Setting("Tokens to merge per layer: 0..24, 0..24:4 or 0,8,16.", "SPEC", "Method", often=True,
        read=values.r_text, check=values.checked_r, since=1, states="cell", grows=True)] = "0..24"
    schedule: Annotated[str, Setting(
        "How r is spread over the layers: constant, decreasing, increasing, inflect:X or list:R,R,...", "NAMES",
        "Method", often=True, read=values.listed, check=values.checked_schedule, since=1, states="cell",
        grows=True)] = "constant"
    method: Annotated[str, Setting("Reduction methods (see: tomebench list methods); a,b makes cells.", "NAMES",
        "Method", often=True, read=values.listed, check=values.names, since=1, states="cell", grows=True)] = "tome"
    prop_attn: Annotated[bool, Setting(
        "Weigh attention by the size of merged tokens; off by default for the presets of MAE.", None, "Method",
        often=True, since=1, states="cell")] = True
    metric: Annotated[str, _option_of_tome("metric",
        "What tokens are compared by: k, q, v, x, x_pre, k_rot; k,q makes cells.")] = PAPER.metric
    heads: Annotated[str, _option_of_tome("heads", "Heads of the metric: mean, concat.")] = PAPER.heads
    distance: Annotated[str, _option_of_tome("distance",
        "Similarity: cosine, euclidean, dot, softmax.")] = PAPER.distance
    combine: Annotated[str, _option_of_tome("combine",
        "What a group becomes: weighted, mean, max, keep.")] = PAPER.combine
    partition: Annotated[str, _option_of_tome("partition",
        "The halves: alternating, sequential, random.")] = PAPER.partition
    matching: Annotated[str, _option_of_tome("matching", f"{', '.join(choices('matching'))}.")] = PAPER.matching
    option: Annotated[str | None, Setting(
        "Options; see: tomebench list methods NAME.", "NAME=A,B", "Method", often=True,
        read=values.option_text, repeated=True, states="cell", grows=True)] = None
    predictors: Annotated[Path | None, Setting("Weights of a trained method (see: train-predictors).", "FILE",
        "Method", read=values.path, states="cell")] = None
    ablate: Annotated[bool, Setting("Each option of the method changed alone, as cells.", None, "Method",
        states="run")] = False
    attention: Annotated[Route, Setting(
        "Attention kernel: auto, sdpa, padded, matmul, augmented; on CUDA also efficient, cudnn, triton.", "NAME",
        "Method", states="cell")] = "auto"
    prefix_only: Annotated[bool, Setting("Keep only what the head reads after the last attention.", None, "Method",
        states="cell")] = False
    rope: Annotated[Rope, Setting("Rotation of a merged token in rotary models: keep, mean.", "NAME", "Method",
        states="cell")] = "keep"
    data: Annotated[str | None, Setting("Images for top-1 (see: tomebench list datasets). None: speed only.", "DATA",
        "Data", often=True, read=values.path_text, check=values.text, since=1, states="images")] = None
    labels: Annotated[bool, Setting("Without: any pictures, agreement with r = 0.", None, "Data", often=True,
        states="images", needs="no-labels is about pictures, but there are none")] = True
    limit: Annotated[int | None, Setting("Use only N of the images.", "N", "Data", often=True, check=values.between(1),
        since=1, states="images", needs="limit is a number of images, but there are none")] = None
    real: Annotated[Path | None, Setting("ReaL labels (real.json) in place of the images' own.", "FILE", "Data",
        read=values.path, states="images", needs="real is about images, but there are none")] = None
    until: Annotated[Literal["decided", "recommended", "all"] | None, Setting(
        "In random order, stop cells: decided, once max-drop is certain; recommended, for one row; all, none.",
        "WHEN", "Data", shown="listed order, none", states="images", grows=True,
        needs="until stops the counting of images, but there are none")] = None
    against: Annotated[Path | None, Setting(
        "With --until decided: is more lost than max-drop against this baseline of check?",
        "FILE", "Data", read=values.path, identity=False, needs="against is about images, but there are none")] = None
    allow_missing: Annotated[int, Setting("Leave out up to K images that cannot be used.", "K", "Data",
        check=values.between(0), states="images", needs="allow-missing is about images, but there are none")] = 0
    verify: Annotated[Path | None, Setting("Manifest of sha256 checksums that the images must have.", "FILE", "Data",
        read=values.path, identity=False, needs="verify is about images, but there are none")] = None
    device: Annotated[str, Setting("auto, cpu, cuda or cuda:N.", "NAME", "Timing", often=True,
        check=values.checked_device, since=1, states="cell")] = "auto"
    dtype: Annotated[Literal["fp32", "tf32", "bf16", "fp16"], Setting("fp32, tf32, bf16 or fp16.", "NAME", "Timing",
        often=True, axis=True, since=1, states="cell")] = "fp32"
    batch_size: Annotated[int | str, Setting("Images per forward pass: auto or a number.", "N", "Timing", often=True,
        read=values.digits_to_int, check=values.checked_batch_size, axis=True, since=1, states="cell")] = "auto"
    mode: Annotated[Literal["infer", "train"], Setting("What to time: infer, or train (a whole step).", "NAME",
        "Timing", often=True, states="cell")] = "infer"
    compile: Annotated[bool, Setting("Compile the model, once per r.", None, "Timing", often=True,
        states="cell")] = False
    cuda_graphs: Annotated[bool, Setting("Replay each pass as a CUDA graph.", None, "Timing", states="cell")] = False
    ceiling: Annotated[bool, Setting("Time the slicing ceiling too: no method can be faster.", None, "Timing",
        often=True, states="run", grows=True)] = False
    selector: Annotated[bool, Setting("Time choosing the tokens apart, too.", None, "Timing", states="run",
        grows=True)] = False
    reference: Annotated[str | None, Setting(
        "MODEL or MODEL@PIXELS timed in every round, by which runs of several models compare.", "MODEL", "Timing",
        shown="the first of several", check=values.checked_reference, states="run")] = None
    end_to_end: Annotated[bool, Setting("Time reading the images too, with --data.", None, "Timing", states="run",
        grows=True, needs="end-to-end speed includes reading images")] = False
    budget: Annotated[Literal["quick", "standard", "publish", "none"], Setting(
        "How exact the timing is: quick, standard, publish; none: top-1 only.", "NAME", "Timing", often=True, since=1,
        grows=True)] = "quick"
    processes: Annotated[int | None, Setting("Fresh processes, in turn.", "K", "Timing", often=True,
        shown="1, publish 5", check=values.between(1, 1000), states="run", grows=True)] = None
    max_drop: Annotated[float, Setting("Points of top-1 that a recommended r surely loses no more than.", "POINTS",
        "Output", often=True, check=values.checked_max_drop, identity=False)] = MAX_DROP
    min_agreement: Annotated[float | None, Setting("Images that keep their class, instead of max-drop.", "PERCENT",
        "Output", check=values.checked_percentage, identity=False)] = None
    min_speedup: Annotated[float | None, Setting("Speed-up that a recommended row has at least.", "TIMES",
        "Output", check=values.above_zero, identity=False)] = None
    max_latency_ms: Annotated[float | None, Setting("Time of a pass of a recommended row at most.", "MS",
        "Output", check=values.above_zero, identity=False)] = None
    cells: Annotated[str | None, Setting("Only part I of N of the values of r, for array jobs: 1/4.", "I/N",
        "Several processes", check=values.checked_cells, states="run")] = None
    share: Annotated[str | None, Setting("Only share I of N of the runs, for many machines: 3/16.", "I/N",
        "Several processes", check=values.checked_cells, identity=False)] = None
    out: Annotated[Path | None, Setting("Run folder.", "DIR", "Output", often=True, shown="results/<name>",
        read=values.path, identity=False)] = None
    name: Annotated[str | None, Setting("Name of the run.", "NAME", "Output", often=True, shown="model and method",
        check=values.checked_name, identity=False)] = None
    seed: Annotated[int, Setting("Seed of random weights, inputs and orders.", "N", "Model",
        check=values.between(0, 2**32 - 1), since=1)] = 0
    threads: Annotated[int | None, Setting("CPU threads of the model.", "N", "Timing", shown="torch's own choice",
        check=values.between(1, 1024), since=1)] = None
    workers: Annotated[int | None, Setting("Processes that read images.", "N", "Data", shown="by the usable CPUs",
        check=values.between(0, 1024), identity=False)] = None
    cache: Annotated[Path | None, Setting("Folder that keeps preprocessed images from one run to the next.", "DIR",
        "Data", often=True, read=values.path, identity=False,
        needs="cache keeps preprocessed images, but there are none")] = None
    offline: Annotated[bool, Setting("Never touch the network.", None, "Model", shown="", one_way=True,
        identity=False)] = False
    # fmt: on


@functools.cache
def hints() -> Mapping[str, Any]:
    """The type of every setting by its name, in the order of the declaration."""
    return {name: get_args(hint)[0] for name, hint in _annotated().items()}


@functools.cache
def settings() -> Mapping[str, Setting]:
    """Every :class:`Setting` by its name, in the order of the declaration."""
    found = {name: get_args(hint)[1:] for name, hint in _annotated().items()}
    if odd := [name for name, more in found.items() if len(more) != 1 or not isinstance(more[0], Setting)]:
        raise TypeError(f"setting {odd[0]} is not Annotated with one Setting")
    return {name: more[0] for name, more in found.items()}


def about_images() -> tuple[str, ...]:
    """Names of the settings that mean nothing without images, ``data`` first."""
    return ("data", *(name for name, setting in settings().items() if setting.needs))


def default(name: str) -> Any:
    """Default of a setting; None where there is none, as for the model."""
    return getattr(Settings, name, None)


def flag(name: str, value: object = None) -> str:
    """The flag of a setting, or of a switch's value: ``--batch-size``, ``--no-compile``."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


@functools.cache
def _annotated() -> Mapping[str, Any]:
    return get_type_hints(Settings, include_extras=True)
