"""Forward pass or training step of every variant of a sweep: eager, compiled or CUDA graph, on rotating batches.

A pass that fails raises an error that names its cell.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.measure.compilation import compiled
from tomebench.measure.cuda_graph import GraphedForward
from tomebench.measure.device import DTYPES
from tomebench.measure.speed import Variant
from tomebench.measure.training import Trainer
from tomebench.reduction.vit import ReducedViT, SlicedViT
from tomebench.schema import CEILING, REFERENCE, SENTINEL, UNWRAPPED
from tomebench.sweeps.cells import ResolvedCell, reduced_vit
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.failures import guarded
from tomebench.sweeps.reference import ReferencePass


class Passes:
    """Runs every variant of a sweep over the same weights, in the way that the configuration asks for.

    Args:
        config: says whether passes are compiled, CUDA graphs, inference or training.
        model: the model as its library made it.
        cells: the cells.
        device: where the model is.
        reference: to be timed with them; None where there is none.
    """

    def __init__(
        self,
        config: SweepConfig,
        model: nn.Module,
        cells: Sequence[ResolvedCell],
        device: torch.device,
        reference: ReferencePass | None = None,
    ) -> None:
        self._config, self._model, self._device, self._reference = config, model, device, reference
        self._first = next(cell for cell in cells if cell.cell.is_baseline)
        self.baseline = self._first.cell.key
        backbone = adapt(model)
        self.models: dict[str, ReducedViT] = {cell.cell.key: reduced_vit(backbone, config, cell) for cell in cells}
        self._ceilings: dict[str, nn.Module] = {}
        if config.ceiling:
            self._ceilings = {
                CEILING + cell.cell.key: reduced_vit(backbone, config, cell, SlicedViT)
                for cell in cells
                if any(cell.r_asked)
            }
        self._runs: dict[str, Callable[[Tensor], Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if config.cuda_graphs else None
        self._trainers: dict[str, Trainer] = {}  # of the model (""), the sentinel's copy of it, and the reference
        self._last: dict[str, tuple[int, Tensor]] = {}
        self._checked: set[str] = set()  # variants whose first training steps were checked for finite gradients
        # By variant and over all rounds: with one pass per burst, every burst would otherwise take the same batch.
        self._turns: dict[str, Iterator[int]] = {}

    def names(self, live: Collection[str]) -> list[str]:
        """Names of the variants to time while the cells ``live`` work; the sentinel is the baseline's twin."""
        ceilings = [name for name in self._ceilings if name.removeprefix(CEILING) in live]
        return [*live, *ceilings, SENTINEL, UNWRAPPED, *([REFERENCE] if self._reference else [])]

    def variants(self, live: Collection[str], inputs: Sequence[Tensor]) -> list[Variant]:
        """The variants to time; each ceiling is timed beside its cell."""
        waits = self._config.mode == "train" and self._config.dtype == "fp16"  # scaling the loss synchronises
        return [
            Variant(name, self.step(name, inputs), name.removeprefix(CEILING) if name in self._ceilings else "", waits)
            for name in self.names(live)
        ]

    def forward(self, name: str) -> Callable[[Tensor], Tensor]:
        """[B, 3, H, W] -> logits [B, classes] without gradients; CellFailed names the cell that failed."""
        return guarded(self.cell(name), without_gradients(self._run(name)))

    def step(self, name: str, inputs: Sequence[Tensor], *, timed: bool = True) -> Callable[[], object]:
        """A function that runs one pass of a variant; each call takes the next batch.

        Args:
            name: of the variant.
            inputs: batches [B, 3, H, W] to rotate.
            timed: replay a CUDA graph where the configuration asks for one, and keep the output for
                :meth:`take_output`.
        """
        if name == REFERENCE and self._reference:
            inputs = self._reference.inputs
        if self._config.mode == "train":
            return rotating(guarded(self.cell(name), self._training(name, inputs)), inputs, self._turn(name))
        run = guarded(self.cell(name), without_gradients(self._run(name, graphed=timed)))
        if not timed:
            return rotating(run, inputs, self._turn(name))

        def keep(batch: int, logits: Tensor) -> None:
            self._last[name] = (batch, logits)

        return rotating(run, inputs, self._turn(name), keep)

    def take_output(self, name: str) -> tuple[int, Tensor] | None:
        """Batch index and logits [B, classes] of a variant's last timed pass, returned once; None in training."""
        return self._last.pop(name, None)

    def _turn(self, name: str) -> Iterator[int]:
        return self._turns.setdefault(name, itertools.count())

    @property
    def state_bytes(self) -> int:
        """Bytes that stay between two steps: weights and the optimiser's state."""
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        return weights + (self._trainers[""].state_bytes if "" in self._trainers else 0)

    def cell(self, name: str) -> str:
        """Key of the cell that a variant belongs to; the reference belongs to none, and keeps its name."""
        return self.baseline if name in (SENTINEL, UNWRAPPED) else name.removeprefix(CEILING)

    def _run(self, name: str, *, graphed: bool = True) -> Callable[[Tensor], Tensor]:
        """Forward pass of a variant; made once, since its compiled code or captured graph belongs to it."""
        if name not in self._runs:
            model = self.model_of(name)
            self._runs[name] = compiled(model) if self._config.compile else model
        if self._pool is None or not graphed:
            return self._runs[name]
        replayed = f"graph of {name}"
        if replayed not in self._runs:
            self._runs[replayed] = GraphedForward(self._runs[name], self._pool)
        return self._runs[replayed]

    def model_of(self, name: str) -> nn.Module:
        """The model of a variant, not compiled.

        The sentinel is the baseline over a copy of the weights: the place in memory is one reason why two variants
        differ in speed, and the same weights would hide it.
        """
        if name == SENTINEL:
            return self._sentinel[1]
        if name == REFERENCE and self._reference:
            return self._reference.wrapped
        return {**self.models, **self._ceilings, UNWRAPPED: self._model}[name]

    @cached_property
    def _sentinel(self) -> tuple[nn.Module, nn.Module]:
        """A copy of the model, and the baseline that wraps it; made on first use."""
        twin = copy.deepcopy(self._model)
        return twin, reduced_vit(adapt(twin), self._config, self._first)

    def _training(self, name: str, inputs: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        forward = self._run(name)
        model, whose = self._model, ""
        if name == SENTINEL:
            model, whose = self._sentinel[0], name
        elif name == REFERENCE and self._reference:
            model, whose = self._reference.model, name
        if whose not in self._trainers:
            self._trainers[whose] = Trainer(model, DTYPES[self._config.dtype], self._device)
        trainer = self._trainers[whose]
        classes = int(getattr(model, "num_classes", 0)) or 2
        labels = torch.arange(len(inputs[0]), device=self._device) % classes

        def step(images: Tensor) -> Tensor:
            if name not in self._checked:
                for batch in inputs:
                    trainer.check(forward, batch, labels)
                self._checked.add(name)
            return trainer.step(forward, images, labels)

        return step


def rotating(
    run: Callable[[Tensor], Tensor],
    inputs: Sequence[Tensor],
    turns: Iterator[int] | None = None,
    keep: Callable[[int, Tensor], object] = lambda batch, output: None,
) -> Callable[[], object]:
    """A step that takes the next batch at each call.

    Args:
        run: the pass.
        inputs: batches.
        turns: counts the calls; steps that share it continue each other's rotation.
        keep: called with the index of the batch and the output.
    """
    turns = itertools.count() if turns is None else turns

    def step() -> None:
        batch = next(turns) % len(inputs)
        keep(batch, run(inputs[batch]))

    return step


def without_gradients(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function in inference mode."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(images)

    return run
