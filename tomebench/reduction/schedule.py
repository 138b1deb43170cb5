"""The schedule of r: how many tokens each layer removes, and how many are left after it once the cap is applied.

Source: ToMe (arXiv 2210.09461), section 3 and appendix on schedules; the linear family is the one of its
released code: layer l removes ``int(lo + l * step)`` with ``lo = int(r * (1 - inflect))``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tomebench.errors import SpecError
from tomebench.words import counted


@dataclass(frozen=True)
class Schedule:
    """Shape of a schedule: linear with an inflection in [-1, 1], or an explicit r for every layer."""

    inflect: float = 0.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not -1 <= self.inflect <= 1:
            raise SpecError(f"schedule: inflection {self.inflect:g} is outside [-1, 1]; -1 is decreasing, 1 increasing")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise SpecError("schedule: a list needs one r >= 0 for every layer, such as list:8,8,4,0")

    def r_layers(self, r: int, depth: int) -> tuple[int, ...]:
        """Tokens to remove in each of ``depth`` layers, before the cap of the method.

        Args:
            r: mean tokens per layer, >= 0; ignored by an explicit list.
            depth: number of blocks, >= 1.

        Raises:
            SpecError: negative r, or a list whose length is not ``depth``.
        """
        if self.layers is not None:
            if len(self.layers) != depth:
                raise SpecError(
                    f"schedule: the list has {counted(len(self.layers), 'value')} "
                    f"but the model has {counted(depth, 'block')}"
                )
            return self.layers
        if r < 0:
            raise SpecError(f"r={r}: the number of tokens to remove cannot be negative")
        if depth == 1:
            return (r,)
        # Exact rational arithmetic: in floats the last layer of an increasing schedule can come out one short.
        lo = int(r * (1 - Fraction(str(self.inflect))))
        return tuple((lo * (depth - 1) + layer * (2 * r - 2 * lo)) // (depth - 1) for layer in range(depth))


CONSTANT = Schedule()
_NAMED = {"constant": CONSTANT, "decreasing": Schedule(-1.0), "increasing": Schedule(1.0)}


def parse_schedule(text: str) -> Schedule:
    """Read ``constant``, ``decreasing``, ``increasing``, ``inflect:<x>`` or ``list:<r,r,...>``.

    Raises:
        SpecError: anything else.
    """
    if not isinstance(text, str):
        raise SpecError(f"schedule is {text!r}; give text such as decreasing, or a list as r")
    if text in _NAMED:
        return _NAMED[text]
    kind, _, value = text.partition(":")
    try:
        if kind == "inflect":
            return Schedule(inflect=float(value))
        if kind == "list":
            return Schedule(layers=tuple(int(v) for v in value.split(",")))
    except ValueError:
        pass
    raise SpecError(
        f"--schedule {text!r} cannot be read; use constant, decreasing, increasing, inflect:-0.5 or list:8,8,4,0"
    )


def split_schedules(text: str) -> tuple[str, ...]:
    """Texts of the schedules in a comma list, each once, in the order given; the numbers after ``list:`` belong to it.

    ``constant,list:8,8,4,0,decreasing`` has three. They are not parsed.
    """
    return tuple(dict.fromkeys(part.strip() for part in re.split(r",(?=\s*[A-Za-z])", text)))


def lists_every_r(text: str) -> bool:
    """Whether every schedule in a comma list is ``list:...``, so that values of r have no effect."""
    return all(part.startswith("list:") for part in split_schedules(text))


@dataclass(frozen=True)
class TokenTrace:
    """Tokens removed and left in every block when a schedule is applied to a given number of tokens."""

    r_layers: tuple[int, ...]  # tokens removed in each block
    tokens: tuple[int, ...]  # tokens after each block
    clamped: bool  # the cap changed r in some block


def half_of_patches(n: int, prefix: int) -> int:
    """Half of the patches, (N - P) // 2: the most that bipartite matching can remove of n tokens, and a usual cap."""
    return max(n - prefix, 0) // 2


def all_but_one_patch(n: int, prefix: int) -> int:
    """All patches but one, N - P - 1: the most that a method can remove of n tokens that always leaves a patch."""
    return max(n - prefix - 1, 0)


def token_trace(
    r_layers: Sequence[int],
    tokens: int,
    prefix: int,
    *,
    cap: Callable[[int, int], int] = half_of_patches,
    prefix_only: bool = False,
) -> TokenTrace:
    """Clamp r to what the method can remove, block by block, and count the tokens left.

    Args:
        r_layers: tokens to remove in each block, as asked.
        tokens: N, tokens before the first block, prefix included.
        prefix: P, class, distillation and register tokens; they are never merged.
        cap: function (tokens, prefix) -> the most tokens that the method can remove.
        prefix_only: the last block keeps the prefix and drops everything else, whatever its r.
    """
    applied, counts = [], []
    clamped = False
    for layer, asked in enumerate(r_layers):
        most = max(tokens - max(prefix, 1), 0)  # a block needs a token, and never loses one of the prefix
        r = min(asked, cap(tokens, prefix), most)
        if prefix_only and layer == len(r_layers) - 1:
            r = tokens - prefix
        else:
            clamped = clamped or r != asked
        tokens -= r
        applied.append(r)
        counts.append(tokens)
    return TokenTrace(tuple(applied), tuple(counts), clamped)
