"""``tomebench fit-head``: fit a k-NN head or a linear probe on a model's image features; writes it for --class-head."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tomebench.cli.options import Json, Quiet, Traceback, setting
from tomebench.errors import InputError
from tomebench.models.spec import ModelSpec
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.sweeps.events import Event


def fit_head(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Alias or timm id, hf-hub:ORG/NAME, local-dir:PATH, hf/FOLDER_OR_ID.",
            metavar="NAME",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data", help="Labelled images (see: tomebench list datasets).", metavar="DATA", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write, .safetensors.", metavar="FILE", show_default=False)
    ],
    head: Annotated[
        Literal["knn", "linear"],
        typer.Option("--head", help="Nearest neighbours, or a linear probe.", metavar="knn|linear"),
    ] = "knn",
    k: Annotated[int, typer.Option("--k", help="knn: neighbours that vote.", metavar="N")] = 20,
    temperature: Annotated[
        float, typer.Option("--temperature", help="knn: temperature of the votes.", metavar="T")
    ] = 0.07,
    c: Annotated[float, typer.Option("--c", help="linear: inverse of the L2 regularisation.", metavar="C")] = 0.316,
    checkpoint: Annotated[Path | None, setting("checkpoint")] = None,
    img_size: Annotated[int | None, setting("img_size")] = None,
    limit: Annotated[int | None, setting("limit")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which images --limit takes.", metavar="N")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images of a pass.", metavar="N")] = 32,
    device: Annotated[str | None, setting("device")] = None,
    workers: Annotated[int | None, setting("workers")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Fit a class head on the features of a model.

    Example: tomebench fit-head --model hf/my_dino --data my_pictures --limit 500 --out head.safetensors

    For models without classes, as DINO, or with others: features are what the model gives without a class head, with
    all its tokens. knn is the vote of the most similar images (cosine, weights as in DINO); linear a logistic
    regression by scikit-learn. The file goes to sweep --class-head. It remembers the images it was fitted on, by their
    content, and a sweep leaves them out: with --limit a part of the data is fitted on, and the rest is evaluated.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: give the name of a .safetensors file")
    for name, number, most in (("k", k, 10**6), ("batch-size", batch_size, 65_536)):
        if not 1 <= number <= most:
            raise InputError(f"--{name} {number}: give a whole number from 1 to {most}")
    for name, value in (("temperature", temperature), ("c", c)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value:g}: give a number above 0")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    from tomebench.cli.console import open_screen
    from tomebench.cli.interrupt import stop_on_signal
    from tomebench.cli.progress import follow
    from tomebench.datasets.classes import ANY_HEAD
    from tomebench.datasets.images import open_dataset
    from tomebench.measure.device import resolve_device
    from tomebench.models.create import load_model
    from tomebench.models.head_files import write_head
    from tomebench.sweeps.events import Finished
    from tomebench.training import fit_head as fitting

    where = resolve_device(device or "auto")
    images = open_dataset(data, limit, seed, head=ANY_HEAD, offline=bool(offline))
    spec = ModelSpec(model, checkpoint=checkpoint, img_size=img_size, evaluated=True, offline=bool(offline))
    loaded = load_model(spec, pretrained=True)
    screen = open_screen(as_json=json, quiet=quiet)
    done: list[fitting.Fitted] = []
    with stop_on_signal(quiet=quiet) as should_stop:

        def events() -> Iterator[Event]:
            fit = fitting.Fit(head, k, temperature, c)
            done.append(
                (
                    yield from fitting.fit_head(
                        fit,
                        loaded,
                        images,
                        where,
                        should_stop,
                        img_size=img_size,
                        batch_size=batch_size,
                        workers=workers,
                    )
                )
            )
            yield Finished((), Path())  # follow() expects this as the last event

        follow(events(), screen)
    tensors, about = done[0].tensors, done[0].about
    write_head(out, tensors, about)
    width = tensors["features" if head == "knn" else "weight"].shape[1]
    if json:
        screen.object({"file": str(out), "width": width, **about, "classes": len(about["classes"])})
        return
    classes = counted(len(about["classes"]), "class")
    screen.line(
        f"written: {out}, {classes}, fitted on {counted(len(images), 'image')}, {width} channels", whole=[str(out)]
    )
    more = ["--checkpoint", str(checkpoint)] if checkpoint else []
    more += ["--img-size", str(img_size)] if img_size else []
    rest = data if limit is not None else "digits" if data == "digits-train" else "DATA"
    screen.next(shlex.join(["tomebench", "sweep", "--model", model, *more, "--class-head", str(out), "--data", rest]))
