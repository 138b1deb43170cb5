"""State of one training: model, predictors, optimiser and batches, one step of it, and how it is written and read."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.datasets.images import ImageSet
from tomebench.errors import RunError, StorageError
from tomebench.models.create import LoadedModel
from tomebench.models.preprocess import Preprocessing
from tomebench.models.weights_file import digest
from tomebench.reduction.backbone import Backbone
from tomebench.reduction.learned import ABOUT, read_learned
from tomebench.reduction.predictors import Predictors, check_blocks, native_r, usual_blocks
from tomebench.regular import read_bytes
from tomebench.schema import canonical_json
from tomebench.training.losses import Losses, Masked, losses, masked_pass
from tomebench.training.pictures import Pictures
from tomebench.training.recipe import BACKBONE, PREDICTORS, STATE, Epoch, Recipe, Trained
from tomebench.whole import write_whole

_DECAY = 0.05
_SLOWER = 0.01
"""Learning rate of the model over that of its predictors."""
_WARM = 0.05
"""Part of the steps over which the learning rate rises."""
_CLIP = 1.0
_NONE = Predictors((), 0)
"""No predictors, for the teacher."""


class Training:
    """Model, predictors, optimiser and batches of one training, and its step."""

    def __init__(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        images: ImageSet,
        directory: Path,
        device: torch.device,
        workers: int | None,
    ) -> None:
        self._recipe, self._model, self._directory, self._device = recipe, loaded.model, directory, device
        self._backbone: Backbone = adapt(loaded.model)
        depth = self._backbone.depth
        blocks = usual_blocks(depth) if recipe.blocks is None else recipe.blocks
        check_blocks(blocks, depth)
        width = self._backbone.macs().blocks[0].width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.predictors = Predictors(blocks, width).to(device)
        self._preprocessing = Preprocessing.from_model(loaded.model)
        self._pictures = Pictures(images, self._preprocessing, recipe.batch_size, recipe.seed, workers)
        self._per_epoch = self._pictures.per_epoch
        self.steps = recipe.epochs * self._per_epoch if recipe.steps is None else recipe.steps
        self._about = {
            **{name: value for name, value in asdict(recipe).items() if name not in ("epochs", "blocks", "backbone")},
            "steps": self.steps,
            "batch_size": self._pictures.batch_size,
            "blocks": ",".join(map(str, blocks)),
            "width": width,
            "backbone": "trained" if recipe.backbone else "frozen",
            "model": loaded.timm_id,
            "img_size": self._preprocessing.input_size[-1],
            "trained_from": loaded.weights,
            "data": images.info.digest,
            "data_name": images.info.name,
        }
        self._teacher = adapt(copy.deepcopy(loaded.model)) if recipe.backbone else self._backbone
        self._teacher.model.requires_grad_(False)
        self._model.requires_grad_(recipe.backbone)
        self._optimizer = torch.optim.AdamW(self._groups(), weight_decay=_DECAY, betas=(0.9, 0.999))
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self.done = 0
        self._sums = torch.zeros(4 + len(blocks), dtype=torch.float64)
        self._counted = 0

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters with and without weight decay, those of the model at a lower rate."""
        parts: list[tuple[nn.Module, float]] = [(self.predictors, self._recipe.lr)]
        if self._recipe.backbone:
            parts.append((self._model, self._recipe.lr * _SLOWER))
        found: list[dict[str, Any]] = []
        for part, rate in parts:
            for matrix in (True, False):
                chosen = [each for each in part.parameters() if (each.ndim > 1) is matrix]
                found.append({"params": chosen, "lr": rate, **({} if matrix else {"weight_decay": 0.0})})
        return found

    @property
    def _shares(self) -> list[float]:
        return [self._recipe.keep**stage for stage in range(1, len(self.predictors.blocks) + 1)]

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch, or of all."""
        return self.done % self._per_epoch == 0 or self.done == self.steps

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is left of the current epoch."""
        return self._pictures.epoch(*divmod(self.done, self._per_epoch))

    def step(self, pixels: Tensor, labels: Tensor) -> None:
        """One step on a batch of uint8 images [B, 3, H, W].

        Raises:
            RunError: the loss is not finite; no weight has changed.
        """
        images = self._preprocessing.normalise(pixels.to(self._device))
        noise = torch.Generator().manual_seed((self._recipe.seed + 1) * 1_000_003 + self.done)
        with torch.no_grad():
            teacher = masked_pass(self._teacher, _NONE, images, noise)
        run = masked_pass(self._backbone, self.predictors, images, noise)
        found = losses(run, teacher, labels.to(self._device), self._shares)
        numbers = _numbers(found, run)
        if not numbers.isfinite().all():
            raise RunError(
                f"the loss of step {self.done + 1} is NaN or infinite; use a smaller --lr, with --out another folder"
            )
        self._optimizer.zero_grad(set_to_none=True)
        found.total.backward()
        factor = learning_rate(self.done / self.steps)
        trained = []
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
            trained += group["params"]
        nn.utils.clip_grad_norm_(trained, _CLIP)
        self._optimizer.step()
        self.done += 1
        self._sums += numbers
        self._counted += 1

    def summary(self, seconds: float) -> Epoch:
        """The means since the last summary."""
        means = (self._sums / max(self._counted, 1)).tolist()
        self._sums.zero_()
        self._counted = 0
        number, of = math.ceil(self.done / self._per_epoch), math.ceil(self.steps / self._per_epoch)
        return Epoch(number, of, tuple(means[:4]), tuple(means[4:]), seconds)

    def save(self) -> None:
        """Write the state; OSError if that fails."""
        state = {
            "about": canonical_json(self._about),
            "done": self.done,
            "sums": self._sums,
            "counted": self._counted,
            "predictors": self.predictors.state_dict(),
            "model": self._model.state_dict() if self._recipe.backbone else {},
            "optimizer": self._optimizer.state_dict(),
        }
        file = io.BytesIO()
        torch.save(state, file)
        write_whole(self._directory / STATE, file.getvalue())

    def resume(self) -> int:
        """Load the state of the folder, if it has one; the number of steps that are done."""
        path = self._directory / STATE
        if not path.exists():
            return 0
        try:
            data = read_bytes(str(path), most=path.stat().st_size)
            state = torch.load(io.BytesIO(data), map_location=self._device, weights_only=True)
            about = json.loads(state["about"])
            self._refuse_other(about)
            self.predictors.load_state_dict(state["predictors"])
            if self._recipe.backbone:
                self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._sums, self._counted, self.done = state["sums"].cpu(), int(state["counted"]), int(state["done"])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError,
                pickle.UnpicklingError) as error:  # fmt: skip
            what = " ".join(str(error).split())
            raise StorageError(
                f"{path} is no state of a training ({what:.120}); use --out another folder, or remove it"
            ) from error
        return self.done

    def ended(self) -> Trained | None:
        """What the folder holds of this training where it has ended; None where it has not."""
        path = self._directory / PREDICTORS
        if not path.exists():
            return None
        about = dict(read_learned(path).metadata)
        about.pop("weights", None)
        self._refuse_other(about)
        return self._trained(before=True)

    def finish(self) -> Trained:
        """Write the weights, and remove the state."""
        weights = self._about["trained_from"]
        if self._recipe.backbone:
            write_whole(self._directory / BACKBONE, save(_tensors(self._model)))
            weights = digest(self._directory / BACKBONE)
        # One key: safetensors writes several in any order, and the digest of the file would differ.
        about = {ABOUT: canonical_json({**self._about, "weights": weights})}
        write_whole(self._directory / PREDICTORS, save(_tensors(self.predictors), metadata=about))
        return self._trained(before=False)

    def _trained(self, *, before: bool) -> Trained:
        (self._directory / STATE).unlink(missing_ok=True)  # which a kill after the last write leaves behind
        backbone, path = self._backbone, self._directory / PREDICTORS
        patches = backbone.tokens - backbone.prefix
        removed = native_r(self.predictors.blocks, self._recipe.keep, patches, backbone.depth)
        model = self._directory / BACKBONE if self._recipe.backbone else None
        return Trained(path, model, digest(path), f"list:{','.join(map(str, removed))}", before)

    def _refuse_other(self, about: Mapping[str, Any]) -> None:
        """RunError where the folder holds a training of another recipe, model or data set."""
        for name in dict.fromkeys([*self._about, *about]):
            there, here = about.get(name), self._about.get(name)
            if there != here:
                raise RunError(
                    f"{self._directory} holds a training with other {name.replace('_', '-')} ({there} -> {here}); "
                    "use --out another folder"
                )


def learning_rate(progress: float) -> float:
    """Factor of the learning rate at a ``progress`` in [0, 1): linear warm-up, then half a cosine to 0."""
    if progress < _WARM:
        return (progress + 1e-3) / (_WARM + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM) / (1 - _WARM)))


def _numbers(found: Losses, run: Masked) -> Tensor:
    parts = [*found, *(kept.mean() for kept in run.kept)]
    return torch.stack([part.detach() for part in parts]).double().cpu()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
