"""Training step as a variant: forward, loss, backward and optimiser step with mixed precision (autocast)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WEIGHT_DECAY = 0.05
_SCALE = 2.0**10


class Trainer:
    """Training steps with one optimiser, which all variants of a sweep share, as they share the weights.

    AdamW with a learning rate of 0: a step has its usual cost and leaves the weights as they are, so every variant
    trains the same model. Weights stay fp32; bf16 and fp16 run under autocast, fp16 with a scaled loss.

    Args:
        model: whose parameters are trained; in training mode.
        dtype: of the matmuls: float32, bfloat16 or float16.
        device: where the model is.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        self._parameters = list(model.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=0.0, weight_decay=_WEIGHT_DECAY)
        # A scale that never changes and is low enough for every variant: a skipped step would look like a fast one.
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=_SCALE, growth_interval=2**31 - 1, enabled=dtype == torch.float16
        )
        self._dtype, self._device = dtype, device

    def step(self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch.

        Args:
            forward: from images to logits [B, classes], over the parameters of the model.
            images: [B, 3, H, W].
            labels: int64 [B].

        Returns:
            The loss, detached.
        """
        try:
            loss = self._backward(forward, images, labels)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        finally:
            self._optimizer.zero_grad(set_to_none=True)  # gradients of a failed step must not reach the next variant
        return loss.detach()

    def check(self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
        """Run forward and backward without a step: gradients that are not finite would spoil all variants' weights.

        Raises:
            RuntimeError: the loss or a gradient is NaN or infinite.
        """
        try:
            loss = self._backward(forward, images, labels)
            finite = loss.isfinite() and all(p.grad.isfinite().all() for p in self._parameters if p.grad is not None)
        finally:
            self._optimizer.zero_grad(set_to_none=True)
        if not finite:
            raise RuntimeError("the loss or a gradient of the first training steps is NaN or infinite")

    def _backward(self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            loss = F.cross_entropy(forward(images), labels)
        self._scaler.scale(loss).backward()
        return loss

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimiser's state as it is between two steps: about two copies of the weights."""
        return sum(
            value.numel() * value.element_size()
            for state in self._optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
