"""Forward passes captured and replayed as CUDA graphs: one launch instead of hundreds, which limit small batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3  # passes before the capture, in which libraries allocate workspaces


class GraphedForward:
    """A forward pass that is captured at its first call and replayed from then on.

    Args:
        forward: runs without gradients on images of one shape [B, 3, H, W] on a CUDA device, without any
            synchronisation inside.
        pool: handle of a memory pool (``torch.cuda.graph_pool_handle()``), shared with the other graphs of a sweep;
            only one of them runs at a time.

    Raises:
        ValueError: called with another shape than at first.
        RuntimeError: from the first call, something in the pass cannot be captured.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], pool: Any) -> None:
        self._forward = forward
        self._pool = pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images: Tensor
        self._logits: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, classes], copied out of the graph's buffer."""
        if self._graph is None:
            self._graph = self._capture(images)
        if images.shape != self._images.shape:
            raise ValueError(f"captured for images {tuple(self._images.shape)}, called with {tuple(images.shape)}")
        self._images.copy_(images)
        self._graph.replay()
        return self._logits.clone()  # the next graph of the pool may overwrite the buffer

    def _capture(self, images: Tensor) -> torch.cuda.CUDAGraph:
        with torch.cuda.device(images.device):
            with torch.inference_mode(False):  # tensors of inference mode would make a compiled pass compile again
                self._images = images.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._forward(self._images)
            torch.cuda.current_stream().wait_stream(side)
            graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            try:
                # Check this thread only: another one, such as a loader's that pins memory, may allocate meanwhile,
                # which the default mode takes for an error of the capture.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    self._logits = self._forward(self._images)
            finally:
                torch.cuda.set_stream(current)  # a failed capture leaves its own stream current
        return graph
