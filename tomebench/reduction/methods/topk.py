"""topk: keep the patches that the class token attends to most, the pruning of EViT without its fused token."""

from __future__ import annotations

from dataclasses import dataclass

from tomebench.reduction.methods.pruning import AttentionPruning
from tomebench.reduction.schedule import all_but_one_patch


@dataclass(frozen=True)
class Topk(AttentionPruning):
    """Keep the N - P - r patches with most attention from the class token; without class token, that receive most.

    What ``attention-prune`` of ToMe's tables keeps, with another cap: down to one patch.
    """

    source = "Liang et al., Not All Patches are What You Need: Expediting Vision Transformers, ICLR 2022"
    cap = staticmethod(all_but_one_patch)
