"""DynamicViT: trained predictors before some blocks say which patches are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tomebench.errors import ModelError, SpecError
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from torch import nn

    from tomebench.reduction.learned import Learned
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class DynamicViT(Method):
    """Pruning by predictors with weights of their own, which ``tomebench train-predictors`` trains.

    The predictor before block b decides about the tokens that leave block b - 1, so only those blocks remove any. How
    many, the schedule of r says; that of the paper leaves floor(T · keep^s) of T patches after the s-th of them. The
    decision is the paper's for inference: the patches of largest probability are kept, as many in every image.
    """

    source = "Rao et al., DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification, NeurIPS 2021"
    merges = False
    after_mlp = True
    trained = True
    cap = staticmethod(all_but_one_patch)

    def choose(self, ctx: Context) -> MergePlan:
        """Keep the patches of largest log-probability, in their order; ties go to the lower index."""
        from tomebench.reduction.clusters import largest
        from tomebench.reduction.plan import MergePlan
        from tomebench.reduction.predictors import KEEP

        if ctx.learned is None:
            raise ValueError("DynamicViT needs its predictors")
        score = ctx.learned(ctx.layer + 1, ctx.x[:, ctx.prefix :])[..., KEEP]
        return MergePlan.dropping(largest(score, score.shape[1] - ctx.r), ctx.x.shape[1], ctx.prefix)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of one predictor, and of the MLP of the r tokens that are dropped only after it."""
        width = block.token_dim
        half, quarter = width // 2, width // 4
        return float(n * (width * width + width * half + half * quarter + 2 * quarter) + r * block.mlp_macs)

    def module(self, learned: Learned, r_layers: Sequence[int], *, width: int, patches: int) -> nn.Module:
        """The predictors of a file.

        Raises:
            SpecError: a block removes tokens that has no predictor after it.
            ModelError: predictors of another model.
        """
        from tomebench.reduction.predictors import check_blocks, kept_share, load_predictors, native_r

        made, depth = load_predictors(learned), len(r_layers)
        where = f"predictors {learned.path}"
        if made.width != width:
            raise ModelError(f"{where}: made for tokens of {made.width} channels, those of the model have {width}")
        try:
            check_blocks(made.blocks, depth)
        except SpecError as error:
            raise ModelError(f"{where}: {error}") from error
        if wrong := [layer for layer, r in enumerate(r_layers) if r and layer + 1 not in made.blocks]:
            listed = ",".join(map(str, native_r(made.blocks, kept_share(learned.metadata), patches, depth)))
            ends = ", ".join(str(block - 1) for block in made.blocks)
            raise SpecError(
                f"{where}: tokens can go in the blocks {ends} only, and the schedule removes some in block {wrong[0]}; "
                f"use --schedule list:{listed}"
            )
        return made
