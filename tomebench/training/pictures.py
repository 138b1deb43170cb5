"""Batches of a data set in another random order each epoch: from memory where it fits, else decoded anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet, sublist
from tomebench.datasets.loader import batch_count, batches
from tomebench.datasets.workers import default_workers
from tomebench.measure.cgroup import usable_cpus
from tomebench.models.preprocess import Preprocessing

_IN_MEMORY = 512 * 2**20
"""Most bytes of preprocessed images that are kept, so that each is decoded once."""


class Pictures:
    """Images of a data set with their labels, preprocessed as for evaluation, in batches that are all full.

    Args:
        images: the data set.
        preprocessing: of the model.
        batch_size: images of a batch; fewer where the data set has fewer.
        seed: of the order; epoch e of a seed always has the same one.
        workers: processes that decode; None: by the number of images and CPUs.
    """

    def __init__(
        self, images: ImageSet, preprocessing: Preprocessing, batch_size: int, seed: int, workers: int | None
    ) -> None:
        self._images, self._transform, self._seed = images, preprocessing.transform(), seed
        self.batch_size = min(batch_size, len(images))
        self._bytes = preprocessing.bytes_per_image
        self._workers = default_workers(len(images), usable_cpus()) if workers is None else workers
        self._kept: Tensor | None = None

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; what is left over, less than a batch, is left out."""
        return len(self._images) // self.batch_size

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch from the ``first`` on: pixels [B, 3, H, W], labels int64 [B].

        Raises:
            DataError: an image cannot be decoded.
        """
        order = torch.randperm(len(self._images), generator=torch.Generator().manual_seed(self._seed + number))
        only = range(first, self.per_epoch)
        if len(self._images) * self._bytes <= _IN_MEMORY:
            pixels, labels = self._in_memory(), torch.from_numpy(self._images.info.labels)
            for index in only:
                chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
                yield pixels[chosen], labels[chosen]
            return
        info = sublist(self._images.info, order.tolist(), self._images.info.digest, "shuffled")
        yield from self._read(self._images.only(order.tolist(), info), only)

    def _in_memory(self) -> Tensor:
        if self._kept is None:
            every = range(batch_count(len(self._images), self.batch_size))
            pixels = torch.cat([pixels for pixels, _ in self._read(self._images, every)])
            self._kept = pixels[: len(self._images)]  # the last batch is padded
        return self._kept

    def _read(self, images: ImageSet, only: range) -> Iterator[tuple[Tensor, Tensor]]:
        found = batches(
            images, self._transform, self.batch_size, workers=self._workers, only=only, bytes_per_image=self._bytes
        )
        for batch in found:
            yield batch.images, batch.labels
