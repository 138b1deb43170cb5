"""Train a demo model, digits_vit or with ``--rope`` digits_rope, from scratch on the training digits, on the CPU.

    python -m tomebench.models.digits_vit.train --out digits_vit.safetensors
    python -m tomebench.models.digits_vit.train --rope --out digits_rope.safetensors

Seeded and deterministic: the same machine and library versions give the same weights, bit for bit. Every epoch draws
every training digit afresh, in new clutter. Besides the class token, each patch token learns whether it lies on the
digit and on which one (token labelling, Jiang et al., arXiv 2104.10858); that second class head is dropped afterwards.
It gives a ViT far more signal than 1 198 labels do, which is what makes training from scratch possible here.

Held-out digits are only counted, never learned from and never used to choose anything: the last weights are kept.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tomebench.datasets.digits.data import Split, load_digits, split_indices
from tomebench.datasets.digits.render import EVALUATION_CLUTTER, EVALUATION_SEED, render_array
from tomebench.models.digits_vit.initialise import initialise
from tomebench.models.digits_vit.model import NAME, NUM_CLASSES, ROTARY, create_model, weights_of

_PATCH = 4
_GRID = 14  # patches per side
_WINDOW = 8  # patches per side of the part seen in early epochs
_BACKGROUND = NUM_CLASSES
"""Label of a patch that shows none of the digit."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the training; with code and library versions they decide the weights."""

    epochs: int = 80
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # part of the steps
    clutter_ramp: float = 0.3  # part of the epochs over which clutter grows to its full strength
    windowed: float = 0.7  # part of the epochs that see a window around the digit only, at a third of the cost
    model: str = NAME
    seed: int = 0
    threads: int = 2
    max_steps: int | None = None  # stop early, for tests


@dataclass(frozen=True)
class Drawn:
    """Rendered digits as tensors: images, labels, and the digit under each patch."""

    images: Tensor  # float32 [n, 3, 56, 56], normalised
    labels: Tensor  # int64 [n]
    tokens: Tensor  # int64 [n, 196]: the digit a patch lies on, or 10 for none


def train(recipe: Recipe, held_out: Drawn | None = None) -> VisionTransformer | Eva:
    """Train from scratch. Sets torch's seed and number of threads.

    Args:
        recipe: hyperparameters.
        held_out: images whose top-1 is logged after every fifth epoch; used for nothing else.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    model = create_model(recipe.model)
    token_head = nn.Linear(model.embed_dim, NUM_CLASSES + 1)
    initialise(model)
    steps = recipe.epochs * (len(split_indices("train")) // recipe.batch_size)
    parameters = [*model.parameters(), *token_head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim == 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step / steps, recipe.warmup))
    done = 0
    for epoch in range(recipe.epochs):
        start, losses = time.monotonic(), []
        model.train()
        ramp = min(1.0, (epoch + 1) / max(1.0, recipe.clutter_ramp * recipe.epochs))
        windowed = epoch < recipe.windowed * recipe.epochs
        for batch in _epoch(recipe, epoch, ramp):
            loss = _loss(model, token_head, batch, _windows(batch.tokens) if windowed else None)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            done += 1
            if done == recipe.max_steps:
                return model.eval()
        seconds = time.monotonic() - start
        logger.info("epoch %3d of %d  loss %.3f  %.0f s", epoch + 1, recipe.epochs, sum(losses) / len(losses), seconds)
        if held_out is not None and (epoch + 1) % 5 == 0:
            correct, total = count_correct(model, held_out), len(held_out.labels)
            logger.info("held-out %d of %d, %.2f %%", correct, total, 100 * correct / total)
    return model.eval()


def draw(split: Split, seed: int, clutter: float = 1.0, only: Sequence[int] | None = None) -> Drawn:
    """Render the digits of a split with one seed: all in order, or only those at the positions ``only``."""
    places = range(len(split_indices(split))) if only is None else only
    labels = torch.from_numpy(load_digits()[1][split_indices(split)[list(places)]])
    drawn = [render_array(place, split, seed, clutter) for place in places]
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float()
    ink = torch.from_numpy(np.stack([digit for _, digit in drawn])).float()
    covered = F.max_pool2d(ink[:, None], _PATCH).flatten(1) > 0.3
    return Drawn(images / 127.5 - 1, labels, torch.where(covered, labels[:, None], _BACKGROUND))


@torch.inference_mode()
def count_correct(model: nn.Module, drawn: Drawn, batch_size: int = 64) -> int:
    """Number of images whose top-1 prediction is right."""
    model.eval()
    batches = zip(drawn.images.split(batch_size), drawn.labels.split(batch_size), strict=True)
    return sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in batches)


def _epoch(recipe: Recipe, epoch: int, clutter: float) -> Iterator[Drawn]:
    """Batches of all training digits, freshly drawn, in random order; an incomplete last batch is left out."""
    seed = EVALUATION_SEED + 1 + recipe.seed * 10_000 + epoch
    for batch in torch.randperm(len(split_indices("train"))).split(recipe.batch_size):
        if len(batch) == recipe.batch_size:
            yield draw("train", seed, clutter, batch.tolist())


def _loss(model: VisionTransformer | Eva, token_head: nn.Module, batch: Drawn, window: Tensor | None) -> Tensor:
    """Cross-entropy of the class token plus that of the patch tokens; with a window, of the patches in it alone."""
    x: Any = model._pos_embed(model.patch_embed(batch.images))
    tokens = batch.tokens
    rotations: dict[str, Any] = {}
    if isinstance(model, Eva):
        x, table = x
        rotations = {"rope": table if window is None else table[window][:, None]}
    if window is not None:
        x = torch.cat([x[:, :1], x[:, 1:].gather(1, window[..., None].expand(-1, -1, x.shape[2]))], dim=1)
        tokens = tokens.gather(1, window)
    for block in model.blocks:
        x = block(x, **rotations)
    features = model.norm(x)
    loss = F.cross_entropy(model.forward_head(features), batch.labels, label_smoothing=0.05)
    weights = torch.ones(NUM_CLASSES + 1)
    weights[_BACKGROUND] = 0.2  # there is far more background than digit
    return loss + F.cross_entropy(token_head(features[:, 1:]).flatten(0, 1), tokens.flatten(), weight=weights)


def _windows(tokens: Tensor) -> Tensor:
    """A random square of 8 x 8 patches around the middle of each digit: patch numbers, int64 [B, 64]."""
    covered = (tokens != _BACKGROUND).reshape(-1, _GRID, _GRID)
    corners = []
    for axis in (2, 1):  # rows, then columns
        line = covered.any(dim=axis).float()
        first, last = line.argmax(dim=1), _GRID - 1 - line.flip(1).argmax(dim=1)
        low, high = (last - _WINDOW + 1).clamp(min=0), first.clamp(max=_GRID - _WINDOW)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        corners.append(low + (torch.rand(len(low)) * (high - low + 1)).long())
    span = torch.arange(_WINDOW)
    rows, columns = corners[0][:, None] + span, corners[1][:, None] + span
    return (rows[:, :, None] * _GRID + columns[:, None, :]).flatten(1)


def _learning_rate(progress: float, warmup: float) -> float:
    """Factor of the learning rate at a ``progress`` in [0, 1]: linear warm-up, then a half cosine to 0."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def save(model: nn.Module, recipe: Recipe, held_out: Drawn, path: Path) -> None:
    """Write fp32 safetensors whose metadata say how the weights were made and what they count on held-out images."""
    metadata = {
        "seed": str(recipe.seed),
        "epochs": str(recipe.epochs),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "held_out_correct": f"{count_correct(model, held_out)} of {len(held_out.labels)}",
    }
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata=metadata)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, report each epoch on stderr, and write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m tomebench.models.digits_vit.train", description="Train the demo model."
    )
    parser.add_argument("--out", type=Path, help="file to write (default: the packaged weights)")
    parser.add_argument("--rope", action="store_true", help="train digits_rope, the model with rotary positions")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(epochs=options.epochs, model=ROTARY if options.rope else NAME, seed=options.seed)
    held_out = draw("test", EVALUATION_SEED, EVALUATION_CLUTTER)
    save(train(recipe, held_out), recipe, held_out, options.out or weights_of(recipe.model))


if __name__ == "__main__":
    main()
