"""What a training is to be like, the files that it writes, and the events that it tells of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tomebench.training.losses import Losses

PREDICTORS, BACKBONE, STATE = "predictors.safetensors", "backbone.safetensors", "state.pt"
"""Files of a training: what it ends with, the model if it was trained, and the state of one that goes on."""


@dataclass(frozen=True)
class Recipe:
    """What a training is to be like."""

    keep: float = 0.7  # part of the patches that each stage keeps, in (0, 1)
    blocks: tuple[int, ...] | None = None  # before which predictors stand; None: usual_blocks
    epochs: int = 30
    steps: int | None = None  # in place of epochs
    lr: float = 1e-3  # of the predictors, at its largest
    batch_size: int = 64
    backbone: bool = False  # the model is trained, too
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """An epoch that has ended, or the last part of one: means over its batches."""

    number: int  # from 1
    of: int
    losses: tuple[float, ...]  # as in Losses
    kept: tuple[float, ...]  # part of the patches after each stage
    seconds: float  # in this process

    @property
    def total(self) -> float:
        """The weighted sum of the losses."""
        return float(Losses(*map(torch.tensor, self.losses)).total)


@dataclass(frozen=True)
class Started:
    """The training begins, or goes on after ``done`` of its steps."""

    steps: int
    done: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Trained:
    """The training has ended: its files, and the schedule that keeps as many tokens as it was trained for."""

    predictors: Path
    backbone: Path | None
    digest: str
    schedule: str
    before: bool  # it had ended already


Event = Started | Epoch | Trained
