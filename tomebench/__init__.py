"""tomebench: what token merging does to the speed and accuracy of a Vision Transformer.

One word for one thing, here and in all that is written about it:

token     one of the N vectors that a block passes on; a patch, or a *prefix* token: class, register, distillation
r         tokens that a layer is asked to remove; clamped to what its method can
match     find for tokens the others that they are most like
merge     put the tokens of a group together in one, whose *size* is the number of patches in it
prune     drop tokens
plan      what a method chooses for one layer: where each token goes (:class:`tomebench.reduction.plan.MergePlan`)
pass      one forward pass of a batch, or in mode train one training step; a profile divides it into *stages*
ceiling   the pass that slices as many tokens off without matching: no method can be faster
floor     the least time that a part of a pass can take at the rates this machine shows
cell      one thing to measure: a model with one r, schedule and set of options, on one device
variant   what a burst times: a cell, its ceiling, r = 0 once more (*sentinel*, for the A/A test), the unwrapped model,
          the reference
reference another model, or the model at another size, at r = 0: timed in all runs of a sweep, by which they compare
unwrapped the model as its library runs it, without a :class:`~tomebench.reduction.vit.ReducedViT` around it
baseline  the cell of r = 0 in a run; for the gate, the stored run that a later one is compared with
burst     passes of one variant between two synchronisations
round     one burst of every variant, in random order; speed-ups are ratios within a round
session   what one process measured of a run, from its start to its end
run       what is stored in one folder: settings, cells, rounds, predictions; of several below one *parent*, a *member*
row       one line of the table, derived from a run
protocol  hash of what a row was measured with: rows are compared where it is equal
finding   what the gate says of one cell in one tier
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "TomebenchError",
    "__version__",
    "advise",
    "apply",
    "check",
    "keep_memory",
    "load_results",
    "recommend",
    "sweep",
]

if TYPE_CHECKING:
    from tomebench.api import advise, apply, check, keep_memory, load_results, recommend, sweep
    from tomebench.errors import TomebenchError


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import tomebench`` costs nothing."""
    if name in __all__:
        return getattr(import_module("tomebench.errors" if name == "TomebenchError" else "tomebench.api"), name)
    raise AttributeError(f"module 'tomebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what can be asked for, loaded or not."""
    return sorted({*globals(), *__all__})
