"""State shared by the phases of one sweep: store, model, passes, input batches, and which cells have failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.errors import Interrupted
from tomebench.measure.device import lost
from tomebench.models.create import LoadedModel
from tomebench.runs.store import Store
from tomebench.schema import REFERENCE
from tomebench.sweeps.cells import ResolvedCell
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Note
from tomebench.sweeps.failures import CellFailed, blamed, ending, lost_with
from tomebench.sweeps.inputs import INPUT_BATCHES, preprocessing_of, timing_inputs, weights_dtype
from tomebench.sweeps.passes import Passes
from tomebench.sweeps.reference import ReferencePass

LOST = "lost"
"""Name of the stored fact: keys of the cells whose pass left the GPU unusable."""


@dataclass
class Job:
    """State shared by the phases of one sweep."""

    config: SweepConfig
    store: Store
    device: torch.device
    loaded: LoadedModel
    cells: Sequence[ResolvedCell]
    batch_size: int
    image_set: ImageSet | None
    should_stop: Callable[[], bool]  # raises RankError if the sweep cannot go on
    reference: ReferencePass | None = None
    together: Collection[str] = ()  # keys of the only cells to be timed, in rounds that have them all; by default all
    passes: Passes = field(init=False)
    inputs: list[Tensor] = field(init=False)  # each [batch_size, 3, H, W] on the device

    def __post_init__(self) -> None:
        self.passes = Passes(self.config, self.loaded.model, self.cells, self.device, self.reference)
        self.inputs = timing_inputs(
            self.image_set,
            preprocessing_of(self.config, self.loaded.model),
            self.batch_size,
            self.device,
            weights_dtype(self.config),
            self.config.seed,
            # Without timing only the baseline is checked, on one batch.
            1 if self.config.budget == "none" else INPUT_BATCHES,
        )

    @property
    def baseline(self) -> str:
        """Key of the r = 0 cell."""
        return self.passes.baseline

    def live(self) -> list[str]:
        """Keys of the cells that have not failed."""
        statuses = self.store.statuses()
        return [key for key in self.passes.models if statuses.get(key, ("ok", None))[0] == "ok"]

    def blame(self, name: str) -> AbstractContextManager[None]:
        """Context that raises CellFailed for the cell of a variant if the block fails."""
        return blamed(self.passes.cell(name), self.batch_size)

    def stop_if_asked(self) -> None:
        """Raise Interrupted if the sweep is to stop, or RankError if it cannot go on."""
        stops(self.should_stop)()

    def failed(self, failure: CellFailed) -> Note:
        """Record that a cell failed; the other cells go on.

        Raises:
            DeviceLostError: the GPU is unusable in this process; the cell is not tried again.
            DeviceError: the baseline or the reference failed, and the user can act on it.
            RuntimeError: one of them failed for another reason; this is what its pass raised.
        """
        if failure.key == REFERENCE and self.reference:
            raise ending(failure, f"the reference {self.reference.name}", self.config) from failure
        cell = next(cell for cell in self.cells if cell.cell.key == failure.key)
        if lost(self.device):
            if failure.key != self.baseline:  # without the baseline no other cell can be compared
                self.store.put(LOST, sorted({*(self.store.get(LOST) or ()), failure.key}))
                self.store.set_status(failure.key, "failed", str(failure))
            raise lost_with(failure, cell.name, self.device) from failure
        if failure.key == self.baseline:
            raise ending(failure, "r = 0", self.config) from failure
        self.store.set_status(failure.key, failure.status, str(failure))
        return Note(f"{cell.name}: {failure}; the other cells go on")


def stops(should_stop: Callable[[], bool]) -> Callable[[], None]:
    """A function that raises Interrupted when a sweep is to stop."""

    def stop_if_asked() -> None:
        if should_stop():
            raise Interrupted("stopped; run the same command again to go on")

    return stop_if_asked
