"""Compare the logits of a timed pass with those of the evaluated model, with the effect of rounding as the yardstick.

Two kernels never round alike. Rounding sends some tokens elsewhere in the matching, and at high r it moves the logits
of most images further than any fixed tolerance would allow. So the effect is measured: the same eager model at the same
r runs on copies of the images that are changed by about one unit in the last place (draws).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]

JITTER: Mapping[str, float] = {"fp32": 2.0**-19, "tf32": 2.0**-10, "bf16": 2.0**-8, "fp16": 2.0**-10}
"""Relative change of a pixel that has the effect of the kernels' rounding, by dtype."""
FLOOR: Mapping[str, float] = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 1.5e-2, "fp16": 2e-3}
"""Distance of logits that is always accepted, by dtype: at least the effect of rounding where no token moves."""
FEW, MANY, MOST = 8, 32, 256
"""Number of draws at first; if those do not explain an output, the number of draws, and the most for small batches."""
_VALUES = 1024  # draws times images, from which the largest distance is known well enough
_WORST, _MIDDLE = 1.15, 1.4  # factors by which the worst and the median image may exceed the draws
_CLEAR = 0.5  # few draws underestimate the effect: only up to here no more are needed
_WRONG = 1e30


@torch.inference_mode()
def output_excess(timed: Tensor, evaluate: Forward, images: Tensor, dtype: str, seed: int = 0) -> float:
    """Distance of a timed pass's logits from its model's, as a multiple of what rounding explains.

    The distance of two images' logits a and b is |a - b| / sqrt(|a|² + |b|²): 0 for equal ones, about 1 for two
    unrelated images. The distance of an image is that to the nearest draw; the draws among themselves give the distance
    to expect. The worst image may be 15 % further than the worst draw, which finds a single wrong image, and the median
    image 40 % further than the median draw, which finds an error in all of them.

    In fp32 an error in one token of one image is found. In half precision an error has to exceed the effect of
    rounding, which is large at high r: r - 1 instead of r may pass. Two images swapped are not found in a model that
    gives both the same logits, such as one with random weights.

    Args:
        timed: logits [B, classes].
        evaluate: the model as it is evaluated, from images to logits.
        images: [B, 3, H, W], those of the timed pass.
        dtype: fp32, tf32, bf16 or fp16.
        seed: random seed of the draws.

    Returns:
        0 where all bits are the same; up to 1 rounding explains the distance. Never NaN or infinite.
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
    """Excess of logits [B, classes] over the distances within the known ones [J, B, classes]."""
    distances, explanations = [], []
    for logits, draws in zip(timed.double(), known.double().unbind(1), strict=True):  # image by image, to save memory
        distances.append(_distances(logits.unsqueeze(0), draws).amin())
        among = _distances(draws, draws).fill_diagonal_(torch.inf)  # each from the others
        explanations.append(among.amin(dim=1))
    distance, explained = torch.stack(distances), torch.stack(explanations)
    worst = distance.max() / (_WORST * explained.max()).clamp_min(floor)
    middle = distance.median() / (_MIDDLE * explained.median()).clamp_min(floor)
    return float(torch.maximum(worst, middle).clamp(0, _WRONG))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances of logits [J, classes] and [K, classes]: [J, K], in [0, 1.5]; 0 where both are zeros."""
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
    """Logits in float32 on the host, with 0 for values that are not finite."""
    return logits.float().nan_to_num(0.0, 0.0, 0.0).cpu()
