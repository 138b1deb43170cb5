"""Train the predictors of DynamicViT on a data set, with the model frozen or trained, too; resumable at any step.

The state of a training is one file, written under a temporary name and renamed. What is random depends on the seed and
the number of the step alone, so a training that was stopped, or killed, goes on to the same weights: on a CPU, with as
many threads, to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tomebench.ambient import usual_state
from tomebench.datasets.images import ImageSet
from tomebench.errors import Interrupted
from tomebench.measure.device import arithmetic
from tomebench.models.create import LoadedModel
from tomebench.runs.lock import RunLock
from tomebench.training.recipe import Event, Recipe, Started
from tomebench.training.state import Training

_SAVE_SECONDS = 60.0


def train(
    recipe: Recipe,
    loaded: LoadedModel,
    images: ImageSet,
    directory: Path,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    workers: int | None = None,
    save_seconds: float = _SAVE_SECONDS,
) -> Iterator[Event]:
    """Train the predictors of a model, or go on with a training that was stopped.

    Args:
        recipe: hyperparameters.
        loaded: the model with the weights to begin with; it is changed where the recipe trains it.
        images: with one label each.
        directory: folder of the training; created.
        device: that computes, in fp32.
        should_stop: asked after every step.
        workers: processes that decode images; None: by their number.
        save_seconds: between two writes of the state.

    Yields:
        Events; the last is ``Trained``.

    Raises:
        SpecError: predictors cannot stand where the recipe says.
        RunError: the folder holds another training, or is in use; or the loss is not finite.
        StorageError: the state cannot be written, or read.
        Interrupted: ``should_stop()`` became true; the state is written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with RunLock.acquire(directory), usual_state(), arithmetic("fp32", None):
        loaded.model.to(device).eval()
        training = Training(recipe, loaded, images, directory, device, workers)
        if (ended := training.ended()) is not None:
            yield ended
            return
        done = training.resume()
        yield Started(training.steps, done, training.predictors.blocks)
        saved = since = time.monotonic()
        while training.done < training.steps:
            for batch in training.batches():
                training.step(*batch)
                now, ended_epoch = time.monotonic(), training.epoch_ended
                stopping = should_stop()
                if ended_epoch:
                    yield training.summary(now - since)
                    since = now
                if stopping or now - saved >= save_seconds:
                    training.save()
                    saved = now
                if stopping and training.done < training.steps:
                    raise Interrupted("stopped between two steps; the state is kept")
                if training.done == training.steps:
                    break
        yield training.finish()
