"""The command line flags, each defined once, and how a command takes all of them as one argument.

The flags of a sweep are named after the fields of ``SweepConfig``. Their values are checked there, together with those
from YAML, so here choices are plain text and "not given" is always ``None``. The defaults shown in the help are
compared with ``SweepConfig`` by a test, because importing it here would slow down ``--help``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from tomebench.cli.panels import HelpAll, in_panel

if TYPE_CHECKING:
    from tomebench.sweeps.config import SweepConfig


def _option(name: str, help: str, metavar: str | None = None, default: str | None = None) -> Any:
    """An option whose true default is in ``SweepConfig``: the text ``default`` is for the reader."""
    shown = f"{help} [default: {default}]" if default else help
    return typer.Option(name, help=shown, metavar=metavar, show_default=False)


Model = Annotated[
    str | None,
    _option("--model", "Alias or timm id (see: tomebench list models), hf-hub:ORG/NAME, local-dir:PATH.", "NAME"),
]
Checkpoint = Annotated[
    Path | None, _option("--checkpoint", "Weights: safetensors or a pickle, in shards or not; or their folder.", "FILE")
]
UseEma = Annotated[
    bool | None,
    _option("--use-ema/--no-use-ema", "Which weights of a checkpoint that has averaged ones, too.", None, "no-use-ema"),
]
NumClasses = Annotated[int | None, _option("--num-classes", "Outputs of the head.", "N", "those of the weights")]
ClassNames = Annotated[
    str | None,
    _option(
        "--class-names",
        "Class names in the order of the head: a file, or sorted, or natural.",
        "FILE",
        "what comes with the weights",
    ),
]
R = Annotated[str | None, _option("--r", "Tokens to merge per layer: 0..24, 0..24:4 or 0,8,16.", "SPEC", "0..24")]
Schedule = Annotated[
    str | None,
    _option(
        "--schedule",
        "How r is spread over the layers: constant, decreasing, increasing, inflect:X or list:R,R,...",
        "NAME",
        "constant",
    ),
]
Method = Annotated[str | None, _option("--method", "Reduction method (see: tomebench list methods).", "NAME", "tome")]
PropAttn = Annotated[
    bool | None,
    _option(
        "--prop-attn/--no-prop-attn",
        "Weigh attention by the size of merged tokens; off by default for the presets of MAE.",
        None,
        "prop-attn",
    ),
]
Attention = Annotated[
    str | None,
    _option(
        "--attention",
        "Attention kernel: auto, sdpa, padded, matmul, augmented; on CUDA also efficient, cudnn, triton.",
        "NAME",
        "auto",
    ),
]
PrefixOnly = Annotated[
    bool | None,
    _option("--prefix-only/--no-prefix-only", "Keep only what the head reads after the last attention.", None, "off"),
]
Metric = Annotated[
    str | None, _option("--metric", "What tokens are compared by: k, q, v, x, x_pre; k,q makes cells.", "NAMES", "k")
]
Heads = Annotated[str | None, _option("--heads", "Heads of the metric: mean, concat.", "NAMES", "mean")]
Distance = Annotated[
    str | None, _option("--distance", "Similarity: cosine, euclidean, dot, softmax.", "NAMES", "cosine")
]
Combine = Annotated[
    str | None, _option("--combine", "What a group becomes: weighted, mean, max, keep.", "NAMES", "weighted")
]
Partition = Annotated[
    str | None, _option("--partition", "The halves: alternating, sequential, random.", "NAMES", "alternating")
]
Matching = Annotated[
    str | None,
    _option(
        "--matching",
        "bipartite, greedy, kmeans-2, kmeans-5, random-prune, attention-prune.",
        "NAMES",
        "bipartite",
    ),
]
Option = Annotated[
    list[str] | None,
    _option("--option", "An option of the method (see: tomebench list methods NAME); A,B makes cells.", "NAME=A,B"),
]
Ablate = Annotated[
    bool | None, _option("--ablate/--no-ablate", "Each option of the method changed alone, as cells.", None, "off")
]
Mode = Annotated[str | None, _option("--mode", "What to time: infer, or train (a whole step).", "NAME", "infer")]
Compile = Annotated[bool | None, _option("--compile/--no-compile", "Compile the model, once per r.", None, "off")]
CudaGraphs = Annotated[
    bool | None, _option("--cuda-graphs/--no-cuda-graphs", "Replay each pass as a CUDA graph.", None, "off")
]
Ceiling = Annotated[
    bool | None,
    _option("--ceiling/--no-ceiling", "Time the slicing ceiling too: no method can be faster.", None, "off"),
]
EndToEnd = Annotated[
    bool | None, _option("--end-to-end/--no-end-to-end", "Time reading the images too, with --data.", None, "off")
]
Data = Annotated[
    str | None, _option("--data", "Images for top-1 (see: tomebench list datasets). None: speed only.", "DATA")
]
Labels = Annotated[
    bool | None,
    _option("--labels/--no-labels", "Without: any pictures, agreement with r = 0.", None, "labels"),
]
Limit = Annotated[int | None, _option("--limit", "Use only N of the images.", "N")]
Real = Annotated[Path | None, _option("--real", "ReaL labels (real.json) in place of the images' own.", "FILE")]
AllowMissing = Annotated[
    int | None, _option("--allow-missing", "Leave out up to K images that cannot be used.", "K", "0")
]
Verify = Annotated[Path | None, _option("--verify", "Manifest of sha256 checksums that the images must have.", "FILE")]
Manifest = Annotated[Path | None, _option("--manifest", "Write a manifest of sha256 checksums.", "FILE")]
Decode = Annotated[bool, _option("--decode", "Decode every image, which takes minutes.")]
PreprocessingName = Annotated[
    str | None,
    _option(
        "--preprocessing",
        "Resize and crop: timm, as the weights say; or tome, to 256/224 of the input size.",
        "NAME",
        "timm",
    ),
]
Device = Annotated[str | None, _option("--device", "auto, cpu, cuda or cuda:N.", "NAME", "auto")]
Dtype = Annotated[str | None, _option("--dtype", "fp32, tf32, bf16 or fp16.", "NAME", "fp32")]
BatchSize = Annotated[str | None, _option("--batch-size", "Images per forward pass: auto or a number.", "N", "auto")]
Budget = Annotated[
    str | None,
    _option("--budget", "How exact the timing is: quick, standard, publish; none: top-1 only.", "NAME", "quick"),
]
Processes = Annotated[int | None, _option("--processes", "Fresh processes, in turn.", "K", "1, publish 5")]
MaxDrop = Annotated[
    float | None,
    _option("--max-drop", "Points of top-1 that a recommended r surely loses no more than.", "POINTS", "1"),
]
Cells = Annotated[str | None, _option("--cells", "Only part I of N of the values of r, for array jobs: 1/4.", "I/N")]
Cache = Annotated[
    Path | None, _option("--cache", "Folder that keeps preprocessed images from one run to the next.", "DIR")
]
ImgSize = Annotated[int | None, _option("--img-size", "Input height and width.", "PIXELS", "the model's own")]
Config = Annotated[
    list[Path] | None,
    _option("--config", "YAML file with settings named like these flags; repeat it to merge, later wins.", "FILE"),
]
Out = Annotated[Path | None, _option("--out", "Run folder.", "DIR", "results/<name>")]
Name = Annotated[str | None, _option("--name", "Name of the run.", "NAME", "model and method")]
Seed = Annotated[int | None, _option("--seed", "Seed of random weights, inputs and orders.", "N", "0")]
Threads = Annotated[int | None, _option("--threads", "CPU threads of the model.", "N", "torch's own choice")]
Workers = Annotated[int | None, _option("--workers", "Processes that read images.", "N", "by the usable CPUs")]
Offline = Annotated[bool | None, _option("--offline", "Never touch the network.")]
NprocPerNode = Annotated[
    str | None,
    _option("--nproc-per-node", "Share the images among processes: a number, auto, gpu or cpu.", "N"),
]
Nnodes = Annotated[str | None, _option("--nnodes", "Machines, or MIN:MAX of them.", "N", "1")]
RdzvBackend = Annotated[str | None, _option("--rdzv-backend", "How machines meet: c10d, static.", "NAME", "static")]
RdzvEndpoint = Annotated[str | None, _option("--rdzv-endpoint", "Where they meet.", "HOST:PORT")]
RdzvId = Annotated[str | None, _option("--rdzv-id", "Name of the job, the same on all machines.", "NAME")]
NodeRank = Annotated[int | None, _option("--node-rank", "Which machine this is, if they meet statically.", "N", "0")]
MasterAddr = Annotated[str | None, _option("--master-addr", "Machine of rank 0, if they meet statically.", "HOST")]
MasterPort = Annotated[int | None, _option("--master-port", "Its port.", "PORT", "29500")]
MaxRestarts = Annotated[int | None, _option("--max-restarts", "Start all again up to N times.", "N", "0")]
Standalone = Annotated[
    bool, _option("--standalone", "One machine, on a free port; the default where nothing above says another place.")
]
Json = Annotated[bool, _option("--json", "Print one JSON object instead of a table.")]
Details = Annotated[bool, _option("--details", "Show all columns, warnings and conditions.")]
Quiet = Annotated[bool, _option("--quiet", "No progress on stderr: errors and the result only.")]
Traceback = Annotated[bool, _option("--traceback", "Show where in the code an error came from.")]


@dataclass(frozen=True)
class SweepFlags:
    """Every flag that the sweeping commands share, as given."""

    model: Model = None
    checkpoint: Checkpoint = None
    use_ema: UseEma = None
    num_classes: NumClasses = None
    class_names: ClassNames = None
    r: R = None
    schedule: Schedule = None
    method: Method = None
    prop_attn: PropAttn = None
    metric: Metric = None
    heads: Heads = None
    distance: Distance = None
    combine: Combine = None
    partition: Partition = None
    matching: Matching = None
    option: Option = None
    ablate: Ablate = None
    attention: Attention = None
    prefix_only: PrefixOnly = None
    data: Data = None
    labels: Labels = None
    limit: Limit = None
    real: Real = None
    allow_missing: AllowMissing = None
    verify: Verify = None
    img_size: ImgSize = None
    preprocessing: PreprocessingName = None
    device: Device = None
    dtype: Dtype = None
    batch_size: BatchSize = None
    mode: Mode = None
    compile: Compile = None
    cuda_graphs: CudaGraphs = None
    ceiling: Ceiling = None
    end_to_end: EndToEnd = None
    budget: Budget = None
    processes: Processes = None
    max_drop: MaxDrop = None
    cells: Cells = None
    config: Config = None
    out: Out = None
    name: Name = None
    seed: Seed = None
    threads: Threads = None
    workers: Workers = None
    cache: Cache = None
    offline: Offline = None
    json: Json = False
    details: Details = False
    quiet: Quiet = False
    traceback: Traceback = False

    def load(self, *first: Path) -> SweepConfig:
        """The configuration these flags ask for, on top of the files ``first`` and those of ``--config``.

        Raises:
            InputError: a file or a value that cannot be used.
        """
        from tomebench.sweeps.config import SweepConfig
        from tomebench.sweeps.config_files import load_config

        fields = SweepConfig.model_fields
        given = {name: None if value == [] else value for name, value in vars(self).items() if name in fields}
        return load_config([*first, *(self.config or [])], given)


_HELP_ALL = "help_all"


def takes_sweep_flags(
    command: Callable[[Any], None], *, defaults: bool = True, flags: type[SweepFlags] = SweepFlags
) -> Callable[..., None]:
    """Let a command take one :class:`SweepFlags`; typer sees a parameter for every field.

    Args:
        command: what to call.
        defaults: show the defaults of sweep in its help.
        flags: those of sweep, or a class that adds the command's own.
    """
    hints = {name: in_panel(name, hint) for name, hint in get_type_hints(flags, include_extras=True).items()}
    if not defaults:
        hints = {name: _without_default(hint) for name, hint in hints.items()}
    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(flags)
    ]
    parameters.append(inspect.Parameter(_HELP_ALL, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll))

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        del given[_HELP_ALL]
        command(flags(**given))

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__  # typer would read the hints of the command itself
    return wrapper


def _without_default(hint: Any) -> Any:
    """The annotation of a flag, its help without the default."""
    found = get_args(hint)
    options = [copy.copy(item) for item in hint.__metadata__]
    for option in options:
        option.help = (option.help or "").partition(" [default:")[0]
    return Annotated[(found[0], *options)]
