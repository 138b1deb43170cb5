"""``tomebench fit-head``: fit a k-NN head or a linear probe on a model's image features; writes it for --class-head."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.cli.outputs import writable
from tomebench.errors import InputError
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.sweeps.config import SweepConfig


@dataclass(frozen=True)
class FitFlags(SweepFlags):
    """Flags of sweep, and those of fit-head."""

    head: Annotated[
        Literal["knn", "linear"],
        typer.Option("--head", help="Nearest neighbours, or a linear probe.", metavar="knn|linear"),
    ] = "knn"
    k: Annotated[int, typer.Option("--k", help="knn: neighbours that vote.", metavar="N")] = 20
    temperature: Annotated[float, typer.Option("--temperature", help="knn: that of the votes.", metavar="T")] = 0.07
    c: Annotated[float, typer.Option("--c", help="linear: inverse of L2 regularisation.", metavar="C")] = 0.316


@partial(takes_sweep_flags, defaults=False, flags=FitFlags, seldom=("Method", "Timing"))
def fit_head(flags: FitFlags) -> None:
    """Fit a class head on the features of a model.

    Example: tomebench fit-head --model hf/my_dino --data my_pictures --limit 500 --out head.safetensors

    For models without classes, such as DINO, or with others: features are what the model gives without a class head,
    with all its tokens, in fp32. knn is the vote of the most similar images (cosine, weights as in DINO); linear a
    logistic regression by scikit-learn. --out is a file, which goes to sweep --class-head. It remembers the images it
    was fitted on, by their content, and a sweep leaves them out: with --limit a part of the data is fitted on, and the
    rest is evaluated.

    It takes the flags of sweep; those about merging and timing play no part.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import result_of
    from tomebench.models.head_files import check_head_file, write_head
    from tomebench.training import fit_head as fitting

    for name, value in (("temperature", flags.temperature), ("c", flags.c)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value:g}: give a number above 0")
    if flags.k < 1:
        raise InputError(f"--k {flags.k}: give a whole number from 1")
    config = flags.load()
    if config.out is None:
        raise InputError("--out says where the class head is written; give a file, such as head.safetensors")
    out = config.out
    check_head_file(out)
    writable("--out", out)
    fit = fitting.Fit(flags.head, flags.k, flags.temperature, flags.c)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    with stop_on_signal(quiet=flags.quiet) as should_stop:
        fitted = result_of(fitting.fit_head(fit, config, should_stop), screen)
    write_head(out, fitted.tensors, fitted.about)
    about: dict[str, Any] = fitted.about
    width = fitted.tensors["features" if flags.head == "knn" else "weight"].shape[1]
    if flags.json:
        screen.object({"file": str(out), "width": width, **about, "classes": len(about["classes"])})
        return
    screen.line(
        f"written: {out}, {counted(len(about['classes']), 'class')}, fitted on {counted(about['n'], 'image')}, "
        f"{counted(width, 'channel')}",
        whole=[str(out)],
    )
    screen.next(_next(config, out, rest="subset: " in str(about.get("note"))))


def _next(config: SweepConfig, out: Path, *, rest: bool) -> str:
    """The sweep with the head: on the rest of the images where only some were taken."""
    words = ["tomebench", "sweep", "--model", config.model]
    for name in ("checkpoint", "img_size"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    data = str(config.data) if rest else "digits" if config.data == "digits-train" else "DATA"
    return shlex.join([*words, "--class-head", str(out), "--data", data])
