"""ModelSpec: the model that a user asks for (name, checkpoint, number of classes, image size). Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = "python:"
"""Start of the name of a model that was passed as a module, which no command can build again."""


@dataclass(frozen=True)
class ModelSpec:
    """A model and its weights as a user names them."""

    name: str  # alias, preset or timm id; timm/NAME, hf-hub:ORG/NAME, local-dir:PATH or hf/FOLDER_OR_ID
    checkpoint: Path | None = None  # file of weights; sets class head and image size where nothing else does
    use_ema: bool | None = None  # the averaged weights of a file that has both; None: those that were trained
    num_classes: int | None = None  # outputs of the class head; None: those of the weights, else the model's own
    class_names: str | None = None  # file with the names of the classes, or how folder names are sorted
    labelled: bool = False  # look for lists of class names that come with the model
    evaluated: bool = False  # its answers count: weights and the preprocessing of pictures have to be its own
    img_size: int | None = None  # input height and width in pixels; None: that of the weights, else the model's own
    offline: bool = False  # never touch the network, as HF_HUB_OFFLINE says for all programs
    seed: int = 0  # of random weights
    class_head: Path | None = None  # file of a class head on the image features of the model
