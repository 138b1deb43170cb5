"""``tomebench embed-classes``: embed class names by the text model of a CLIP or SigLIP; writes what zero-shot needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tomebench.cli.options import Json, Traceback, setting
from tomebench.cli.outputs import writable
from tomebench.words import counted

_TEMPLATE = "a photo of a {}."


def embed(
    model: Annotated[
        str,
        typer.Option(
            "--model", help="hf/FOLDER or hf/ORG/NAME of a CLIP or SigLIP.", metavar="NAME", show_default=False
        ),
    ],
    class_names: Annotated[
        Path,
        typer.Option("--class-names", help="Class names: a line each, or JSON.", metavar="FILE", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write.", metavar="FILE", show_default=False)],
    template: Annotated[
        list[str] | None,
        typer.Option(
            "--template", help=f"Sentence with {{}} for the name; repeat it. [default: {_TEMPLATE}]", metavar="TEXT"
        ),
    ] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Embed class names by a model's own text model.

    Example: tomebench embed-classes --model hf/my_clip --class-names names.txt --out classes.safetensors

    The file goes to sweep --class-head, for zero-shot top-1 of the same model's vision tower. It holds the scale
    and bias of the checkpoint, too. Of several templates the mean is taken.
    """
    import torch

    from tomebench.cli.console import open_screen
    from tomebench.datasets.class_lists import read_class_names
    from tomebench.models.head_files import BIAS, EMBEDDINGS, SCALE, check_head_file, write_head
    from tomebench.models.hf_texts import embed_classes

    check_head_file(out)
    writable("--out", out)
    names = read_class_names(class_names)
    templates = template or [_TEMPLATE]
    found = embed_classes(model, names.names, templates, offline=bool(offline))
    about = {
        "classes": list(names.names),
        "templates": templates,
        "model": found.model,
        "weights": found.weights,
    }
    tensors = {EMBEDDINGS: found.embeddings, SCALE: torch.tensor(found.scale), BIAS: torch.tensor(found.bias)}
    write_head(out, tensors, about)
    screen = open_screen(as_json=json)
    command = shlex.join(["tomebench", "sweep", "--model", model, "--class-head", str(out), "--data", "DATA"])
    if json:
        screen.object({"file": str(out), "classes": len(names.names), "width": found.embeddings.shape[1], **about})
        return
    screen.line(
        f"written: {out}, {counted(len(names.names), 'class')} by {counted(len(templates), 'template')}",
        whole=[str(out)],
    )
    screen.next(command)
