"""Render a digit at a random place in a 56 x 56 RGB image, among fragments of other digits, lines, blobs and noise.

An image depends on (digit, split, seed) alone, and is the same to the last bit on every machine and in every process:
random numbers are raw bits of PCG64, whose stream numpy guarantees, and the arithmetic is elementwise float64 in plus,
minus, times and divide, which IEEE 754 defines exactly. So there is no sine here, no matrix product and no float sum.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image

from tomebench.datasets.digits.data import GRID, INK_MAX, Split, load_digits, split_indices

IMAGE_SIZE = 56
"""Height and width of a rendered image, in pixels: 14 x 14 patches of 4 x 4."""
EVALUATION_SEED = 0
"""Seed of the evaluation set. Training uses the seeds above it."""
EVALUATION_CLUTTER = 0.9
"""Strength of clutter in the evaluation set, in [0, 1]. Training goes up to 1, so that evaluation is easier."""

_Floats = npt.NDArray[np.float64]
_CENTRES = np.arange(IMAGE_SIZE) + 0.5
"""Centres of the pixels of a row or column."""
_DIGIT_SIZE = (18.0, 30.0)  # pixels
_FRAGMENTS = (4, 7)
_LINES = (1, 3)
_BLOBS = (1, 3)


class _Random:
    """Uniform random numbers from raw generator bits, identical under every numpy release."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, low: float, high: float, size: int) -> _Floats:
        """Float64 [size], uniform in [low, high)."""
        bits: npt.NDArray[np.uint64] = self._bits.random_raw(size) >> np.uint64(11)
        return low + (high - low) * (bits.astype(np.float64) * 2.0**-53)

    def one(self, low: float, high: float) -> float:
        """One float, uniform in [low, high)."""
        return float(self.uniform(low, high, 1)[0])

    def integer(self, low: int, high: int) -> int:
        """One int, uniform in [low, high], both included."""
        return low + int(self.one(0, 1) * (high - low + 1))


def render(index: int, split: Split = "test", seed: int = EVALUATION_SEED) -> Image.Image:
    """Draw one digit as the evaluation set shows it: an RGB image of 56 x 56 pixels.

    Args:
        index: position in the split.
        split: ``train`` or ``test``; the clutter is made of other digits of the same split.
        seed: non-negative; another seed is another picture of the same digit.
    """
    return Image.fromarray(render_array(index, split, seed, EVALUATION_CLUTTER)[0])


def render_array(index: int, split: Split, seed: int, clutter: float = 1.0) -> tuple[npt.NDArray[np.uint8], _Floats]:
    """Draw one digit; see :func:`render`.

    Args:
        index: position in the split.
        split: ``train`` or ``test``.
        seed: non-negative.
        clutter: how strongly everything that is not the digit is drawn, in [0, 1].

    Returns:
        The image, uint8 [56, 56, 3], and how much of the digit's ink each pixel shows, float64 [56, 56] in [0, 1].
    """
    random = _Random(0 if split == "test" else 1, seed, index)
    cells = _ink_cells(split)
    size = random.one(*_DIGIT_SIZE)
    x, y = random.uniform(size / 2, IMAGE_SIZE - size / 2, 2)
    digit = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    _stamp(digit, cells[index], 1.0, size, x, y, random, tilt=0.09)
    ink = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    _fragments(ink, index, cells, size, x, y, random)
    _lines_and_blobs(ink, random)
    return _colour(np.maximum(digit, clutter * ink), clutter, random), digit


@functools.cache
def _ink_cells(split: Split) -> _Floats:
    """The digits of a split as ink in [0, 1]: [n, 8, 8]."""
    cells, _ = load_digits()
    return cells[split_indices(split)] / INK_MAX


def _stamp(
    ink: _Floats, cells: _Floats, strength: float, size: float, x: float, y: float, random: _Random, tilt: float
) -> None:
    """Draw cells, eight of them to ``size`` pixels, around (x, y) into ink [56, 56]: bilinear, tilted and sheared."""
    cells = np.pad(cells, 1)  # strokes fade out at the edge
    t, shear, stretch = random.one(-tilt, tilt), random.one(-0.15, 0.15), random.one(0.9, 1.1)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)  # a rotation without trigonometry
    reach = 0.85 * max(cells.shape) * size / GRID  # over half the diagonal, sheared: no ink beyond
    rows, columns = _near(y, reach), _near(x, reach)
    dx, dy = (_CENTRES[columns] - x) * (GRID / size), (_CENTRES[rows, None] - y) * (GRID / size)
    u = (cosine * dx + sine * dy) * stretch + shear * dy + (cells.shape[1] - 1) / 2
    v = (cosine * dy - sine * dx) / stretch + (cells.shape[0] - 1) / 2
    u, v = np.clip(u, 0, cells.shape[1] - 1.000001), np.clip(v, 0, cells.shape[0] - 1.000001)
    left, top = u.astype(np.intp), v.astype(np.intp)
    u, v = u - left, v - top
    upper = cells[top, left] * (1 - u) + cells[top, left + 1] * u
    lower = cells[top + 1, left] * (1 - u) + cells[top + 1, left + 1] * u
    area = ink[rows, columns]
    np.maximum(area, strength * (upper * (1 - v) + lower * v), out=area)


def _near(centre: float, reach: float) -> slice:
    """Slice of rows or columns within ``reach`` pixels of a coordinate in the image."""
    return slice(max(0, int(centre - reach)), min(IMAGE_SIZE, int(centre + reach) + 1))


def _fragments(ink: _Floats, index: int, cells: _Floats, size: float, x: float, y: float, random: _Random) -> None:
    """Draw strokes of other digits, as large as the digit's own, around the digit at (x, y)."""
    for _ in range(random.integer(*_FRAGMENTS)):
        other = cells[(index + random.integer(1, len(cells) - 1)) % len(cells)]
        height, width = random.integer(2, 5), random.integer(2, 5)
        row, column = random.integer(0, GRID - height), random.integer(0, GRID - width)
        strength = random.one(0.6, 1.0)
        apart = size / 2 + max(height, width) * size / GRID / 2
        for px, py in random.uniform(0, IMAGE_SIZE, 12).reshape(-1, 2):
            if max(abs(px - x), abs(py - y)) > apart:  # the first place that is clear of the digit, if there is one
                piece = other[row : row + height, column : column + width]
                _stamp(ink, piece, strength, size, px, py, random, tilt=0.5)
                break


def _lines_and_blobs(ink: _Floats, random: _Random) -> None:
    """Draw straight lines and soft discs, fainter than strokes, anywhere."""
    for _ in range(random.integer(*_LINES)):
        px, py, t = random.one(0, IMAGE_SIZE), random.one(0, IMAGE_SIZE), random.one(-1, 1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        distance = np.abs(cosine * (_CENTRES - px) + sine * (_CENTRES[:, None] - py))
        np.maximum(ink, random.one(0.2, 0.5) * np.clip(1.4 - distance, 0, 1), out=ink)
    for _ in range(random.integer(*_BLOBS)):
        px, py, radius = random.one(0, IMAGE_SIZE), random.one(0, IMAGE_SIZE), random.one(3, 9)
        dx, dy = (_CENTRES - px) / radius, (_CENTRES[:, None] - py) / radius
        np.maximum(ink, random.one(0.2, 0.45) * np.clip(1.5 - (dx * dx + dy * dy), 0, 1), out=ink)


def _colour(ink: _Floats, clutter: float, random: _Random) -> npt.NDArray[np.uint8]:
    """Paint ink [56, 56] on a background that changes from corner to corner, with noise: uint8 [56, 56, 3]."""
    level, contrast = random.one(0.05, 0.4), random.one(0.35, 0.6)
    tint_background, tint_ink = random.uniform(-0.05, 0.05, 3), random.uniform(-0.15, 0.15, 3)
    slope = random.uniform(-0.25, 0.25, 2) * clutter
    background = level + slope[0] * (_CENTRES / IMAGE_SIZE - 0.5) + slope[1] * (_CENTRES[:, None] / IMAGE_SIZE - 0.5)
    noise = random.uniform(-1, 1, 3 * IMAGE_SIZE * IMAGE_SIZE).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    light = background[..., None] + tint_background + ink[..., None] * (contrast + tint_ink)
    light = light + noise * (random.one(0.03, 0.15) * clutter)
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)
