"""``tomebench train-predictors``: train the predictors that dynamicvit decides by; writes weights for --predictors."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.options import Json, Quiet, Traceback, setting
from tomebench.errors import ConfigError, DataError, InputError, SpecError
from tomebench.models.spec import ModelSpec
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.training.recipe import Epoch, Trained

_LARGEST_LR = 1.0


def train_predictors(
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
    out: Annotated[Path, typer.Option("--out", help="Folder of the training.", metavar="DIR", show_default=False)],
    checkpoint: Annotated[Path | None, setting("checkpoint")] = None,
    keep: Annotated[
        float, typer.Option("--keep", help="Part of the patches that each predictor keeps.", metavar="SHARE")
    ] = 0.7,
    blocks: Annotated[
        str | None,
        typer.Option(
            "--blocks",
            help="Blocks before which predictors stand, from 1. [default: at each quarter of the model: 3,6,9 of 12]",
            metavar="B,B,...",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the data. [default: 30]", metavar="N")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps, in place of --epochs.", metavar="N")] = None,
    lr: Annotated[
        float, typer.Option("--lr", help="Learning rate; a hundredth of it for the model.", metavar="RATE")
    ] = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images of a step.", metavar="N")] = 64,
    train_backbone: Annotated[
        bool, typer.Option("--train-backbone", help="Train the model, too, and write it beside the predictors.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, orders and decisions.", metavar="N")] = 0,
    limit: Annotated[int | None, setting("limit")] = None,
    class_names: Annotated[str | None, setting("class_names")] = None,
    device: Annotated[str | None, setting("device")] = None,
    workers: Annotated[int | None, setting("workers")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Train the predictors that --method dynamicvit needs.

    Example: tomebench train-predictors --model deit_small --data DIR --out p

    After Rao et al., NeurIPS 2021: nothing is removed in training, patches that a predictor drops are masked in
    attention. The loss is cross-entropy, 0.5 of the divergence from the model that keeps all, 0.5 of the distance of
    its features, and 2 of the squared distance from the share to keep. Images are preprocessed as for evaluation, and
    not augmented.

    The same command goes on where it stopped; on a CPU to the same weights, bit for bit. The file that it writes goes
    to sweep --predictors, with a schedule that removes tokens where predictors stand; it is printed at the end.
    """
    if epochs is not None and steps is not None:
        raise ConfigError("--epochs and --steps both say how long; drop one of them")
    for name, number, most in (("epochs", epochs, 10**6), ("steps", steps, 10**9), ("batch-size", batch_size, 65_536)):
        if number is not None and not 1 <= number <= most:
            raise InputError(f"--{name} {number}: give a whole number from 1 to {most}")
    if not 0 < keep < 1:
        raise InputError(f"--keep {keep:g}: give a share above 0 and below 1, such as 0.7")
    if not (math.isfinite(lr) and 0 < lr <= _LARGEST_LR):
        raise InputError(f"--lr {lr:g}: give a rate above 0 and up to {_LARGEST_LR:g}")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: give 1 or more images")
    if workers is not None and not 0 <= workers <= 1024:
        raise InputError(f"--workers {workers}: give a number from 0 to 1024")
    at = None if blocks is None else _blocks(blocks)
    if data == "digits":
        raise DataError("--data digits: top-1 is counted on these images; train on the others, --data digits-train")
    from tomebench.cli.console import open_screen
    from tomebench.cli.interrupt import stop_on_signal
    from tomebench.datasets.images import open_dataset
    from tomebench.measure.device import resolve_device
    from tomebench.measure.predict import require_matching_head
    from tomebench.models.create import build_model, load_model
    from tomebench.training.recipe import Epoch, Recipe, Started, Trained
    from tomebench.training.train import train

    recipe = Recipe(keep, at, epochs or Recipe.epochs, steps, lr, batch_size, train_backbone, seed)
    where = resolve_device(device or "auto")
    spec = ModelSpec(
        model,
        checkpoint=checkpoint,
        class_names=class_names,
        labelled=True,
        evaluated=True,
        offline=bool(offline),
    )
    head = build_model(spec, meta=True).head
    images = open_dataset(data, limit, seed, head=head, offline=bool(offline))
    require_matching_head(head.num_classes, images.info)
    loaded = load_model(spec, pretrained=True)
    screen = open_screen(as_json=json, quiet=quiet)
    with stop_on_signal(quiet=quiet) as should_stop:
        for event in train(recipe, loaded, images, out, where, should_stop, workers=workers):
            match event:
                case Started():
                    from_ = f", going on after {event.done}" if event.done else ""
                    stand = ", ".join(map(str, event.blocks))
                    length = counted(event.steps, "step")
                    screen.note(f"{loaded.timm_id}: {length}, predictors before blocks {stand}{from_}")
                case Epoch():
                    screen.note(_epoch(event))
                case Trained():
                    ended = event
    command = _next(ended, model, checkpoint, data, class_names)
    if json:
        screen.object(
            {
                "predictors": ended.predictors,
                "digest": ended.digest,
                "backbone": ended.backbone,
                "schedule": ended.schedule,
                "next": command,
            }
        )
        return
    if ended.before:
        screen.line(f"{out} holds this training already; it has ended")
    for path in filter(None, (ended.predictors, ended.backbone)):
        screen.line(f"written: {path}", whole=[str(path)])
    screen.next(command)


def _blocks(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise SpecError(f"--blocks {text[:40]!r}: give numbers of blocks such as 3,6,9") from None


def _epoch(event: Epoch) -> str:
    classes, teacher, tokens, ratio = event.losses
    kept = " ".join(f"{share:.3f}" for share in event.kept)
    return (
        f"epoch {event.number} of {event.of}: loss {event.total:.4f} (classes {classes:.4f}, teacher {teacher:.4f}, "
        f"tokens {tokens:.4f}, ratio {ratio:.5f}), kept {kept}, {event.seconds:.0f} s"
    )


def _next(ended: Trained, model: str, checkpoint: Path | None, data: str, class_names: str | None) -> str:
    """The sweep that measures what was trained."""
    weights = ended.backbone or checkpoint
    words = ["tomebench", "sweep", "--model", model, *(["--checkpoint", str(weights)] if weights else [])]
    words += ["--method", "dynamicvit", "--predictors", str(ended.predictors), "--schedule", ended.schedule]
    words += ["--class-names", class_names] if class_names else []
    return shlex.join([*words, "--data", "digits" if data == "digits-train" else "DATA"])
