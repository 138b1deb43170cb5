"""Whether what was timed is what the model computes, although two kernels never round alike.

Rounding sends some tokens another way, and at high r it moves the logits of most images further than any fixed
tolerance would allow. So the yardstick is measured: the same eager model at the same r, on the same images moved by
about one unit in the last place, gives for every image what rounding can make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]

JITTER: Mapping[str, float] = {"fp32": 2.0**-19, "tf32": 2.0**-10, "bf16": 2.0**-8, "fp16": 2.0**-10}
"""Relative change of a pixel that goes through a model as its kernels' rounding does, by dtype."""
FLOOR: Mapping[str, float] = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 1.5e-2, "fp16": 2e-3}
"""Distance that is never too far, by dtype: what rounding comes to where no token moves, and more than that in fp32."""
FEW, MANY, MOST = 8, 32, 256
"""Draws at first; draws, and the most of them for small batches, where those do not explain an output."""
_VALUES = 1024  # of draws times images, from which the largest is known well enough
_WORST, _MIDDLE = 1.15, 1.4  # factors that the worst and the middle image may be over what the draws show
_CLEAR = 0.5  # with few draws the yardstick is too long: only this far is surely explained by more of them
_WRONG = 1e30


@torch.inference_mode()
def output_excess(timed: Tensor, evaluate: Forward, images: Tensor, dtype: str, seed: int = 0) -> float:
    """How far the logits of a timed pass are from its model's, as a multiple of what rounding explains.

    The distance of two images' logits a and b is |a - b| / sqrt(|a|² + |b|²): 0 for the same, about 1 for those of two
    images. An image of the timed pass is as far away as the nearest of some draws, and so are the draws from each
    other. The worst image may be 15 % further than any draw, and the middle one 40 % further than the middle draw: the
    one finds a single image that is wrong, the other what goes wrong in all of them. In fp32 that goes down to a single
    token of a single image. In half precision an error has to be larger than what rounding does, which at high r is
    much: r - 1 instead of r may pass. Nor is an image found that was taken for another one by a model, such as one with
    random weights, that says the same of both.

    Args:
        timed: logits [B, classes].
        evaluate: the model as it is evaluated, from images to logits.
        images: [B, 3, H, W], those of the timed pass.
        dtype: fp32, tf32, bf16 or fp16.
        seed: of the draws.

    Returns:
        0 where all bits are the same; up to 1 is explained. Never NaN or infinite.
    """
    evaluated = evaluate(images)
    same = (timed == evaluated) | (timed.isnan() & evaluated.isnan())
    if same.all():
        return 0.0
    if not (same | (timed.isfinite() & evaluated.isfinite())).all():
        return _WRONG
    draws = _draws(evaluate, images, dtype, seed)
    known = [_finite(evaluated)]
    for count in (FEW, min(max(MANY, -(-_VALUES // len(images))), MOST)):
        known += [next(draws) for _ in range(count + 1 - len(known))]
        excess = _excess(_finite(timed), torch.stack(known), FLOOR[dtype])
        if excess <= _CLEAR:
            break
    return excess


def _excess(timed: Tensor, known: Tensor, floor: float) -> float:
    """Of logits [B, classes] over known ones [J, B, classes]."""
    distances, explanations = [], []
    for logits, draws in zip(timed.double(), known.double().unbind(1), strict=True):  # one by one, to take no memory
        distances.append(_distances(logits.unsqueeze(0), draws).amin())
        among = _distances(draws, draws).fill_diagonal_(torch.inf)  # each from the others
        explanations.append(among.amin(dim=1))
    distance, explained = torch.stack(distances), torch.stack(explanations)
    worst = distance.max() / (_WORST * explained.max()).clamp_min(floor)
    middle = distance.median() / (_MIDDLE * explained.median()).clamp_min(floor)
    return float(torch.maximum(worst, middle).clamp(0, _WRONG))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Of logits [J, classes] and [K, classes]: [J, K], in [0, 1.5]; 0 where both are zeros."""
    squares = a.square().sum(dim=1).unsqueeze(1) + b.square().sum(dim=1)
    apart = squares - 2 * a @ b.T
    return (apart.clamp_min(0) / squares.clamp_min(torch.finfo(squares.dtype).tiny)).sqrt()


def _draws(evaluate: Forward, images: Tensor, dtype: str, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator(images.device).manual_seed(seed)
    while True:
        up = torch.randint(0, 2, images.shape, generator=generator, device=images.device, dtype=torch.int8)
        moved = torch.where(up.bool(), 1 + JITTER[dtype], 1 - JITTER[dtype]).mul_(images).to(images.dtype)
        yield _finite(evaluate(moved))


def _finite(logits: Tensor) -> Tensor:
    """In float32 on the host, with 0 for what is not finite."""
    return logits.float().nan_to_num(0.0, 0.0, 0.0).cpu()
