"""Blocks of timm's ViTs, each as its two halves: the attention branch, after which tokens are merged, and the MLP."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as StandardBlock
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from timm.models.vision_transformer_relpos import RelPosBlock, ResPostRelPosBlock
from torch import Tensor, nn

from tomebench.backbones.blockwise import Block, HeadShape, Place
from tomebench.backbones.parts import first_unknown, linear_macs, parts_of, refusal, refuse_hooks, refuse_uncounted
from tomebench.backbones.timm_attention import attention_macs, check_attention, head_dim, self_attention
from tomebench.reduction.attention import attend
from tomebench.reduction.macs import BlockMacs
from tomebench.reduction.method import Heads
from tomebench.schema import Route


class TimmBlock(Block):
    """One block of a model of timm's, of the class that :data:`BLOCKS` names for this adapter.

    Args:
        block: nothing is stored on it.

    Raises:
        UnsupportedModelError: it has a part that is not run; names its class and attribute.
    """

    PARTS: ClassVar[set[str]]
    """Names of all sub-modules, parameters, buffers and public attributes of the block."""

    def __init__(self, block: nn.Module) -> None:
        if unknown := first_unknown(parts_of(block, plain=True), self.PARTS):
            raise refusal(f"{type(block).__name__} has {unknown!r}")
        super().__init__(block)

    def check(self) -> None:
        """Raise unless the parts of the block are ones that are run."""
        name = type(self.block).__name__
        check_attention(self.block.attn, f"'attn' of {name}")
        refuse_uncounted(self.block.mlp, f"'mlp' of {name}")

    @property
    def attns(self) -> tuple[Any, ...]:
        """The attention modules side by side; each has ``num_heads`` and ``fused_attn``."""
        return (self.block.attn,)

    @property
    def shape(self) -> HeadShape:
        """The heads of its attention; of several side by side, those of the first."""
        attn = self.attns[0]
        return HeadShape(int(attn.num_heads), head_dim(attn), bool(attn.fused_attn))

    def macs(self) -> BlockMacs:
        """MACs of the block's matmuls."""
        return attention_macs(self.attns, linear_macs(self.block.mlp))


class PreNorm(TimmBlock):
    """The standard block: a norm before each branch, LayerScale and drop-path after it."""

    PARTS: ClassVar[set[str]] = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads)."""
        block = self.block
        out, heads = self_attention(block.attn, block.norm1(x), size, route, place)
        return x + block.drop_path1(block.ls1(out)), heads

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        block = self.block
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


class EvaPreNorm(TimmBlock):
    """``EvaBlock``: as the standard block, with scales that are parameters, of both branches, of the first, or none."""

    PARTS: ClassVar[set[str]] = {
        *("norm1", "attn", "gamma_1", "drop_path1", "norm2", "mlp", "gamma_2", "drop_path2", "init_values")
    }

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads)."""
        block = self.block
        out, heads = self_attention(block.attn, block.norm1(x), size, route, place)
        if block.gamma_1 is not None:
            out = block.gamma_1 * out
        return x + block.drop_path1(out), heads

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        block = self.block
        out = block.mlp(block.norm2(x))
        if block.gamma_2 is not None:
            out = block.gamma_2 * out
        return x + block.drop_path2(out)


class PostNorm(TimmBlock):
    """``ResPostBlock`` and ``EvaBlockPostNorm``: a norm after each branch."""

    PARTS: ClassVar[set[str]] = {"attn", "norm1", "drop_path1", "mlp", "norm2", "drop_path2", "init_values"}

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads)."""
        block = self.block
        out, heads = self_attention(block.attn, x, size, route, place)
        return x + block.drop_path1(block.norm1(out)), heads

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        block = self.block
        return x + block.drop_path2(block.norm2(block.mlp(x)))


class BeitPreNorm(EvaPreNorm):
    """``Block`` of BEiT: as that of Eva, with a bias for each head and pair of tokens by how they lie."""

    @property
    def biased(self) -> bool:
        """Whether the block has a bias of its own for each head and pair of tokens."""
        return self.block.attn.relative_position_bias_table is not None

    def position_bias(self) -> Tensor | None:
        """The block's own bias for each head and pair of all tokens, [1, heads, N, N]; None where there is none."""
        return self.block.attn._get_rel_pos_bias() if self.biased else None


class RelPosPreNorm(PreNorm):
    """``RelPosBlock``: the standard block, with a bias for each head and pair of tokens by how they lie."""

    @property
    def biased(self) -> bool:
        """Whether the block has a bias of its own for each head and pair of tokens."""
        return self.block.attn.rel_pos is not None

    def position_bias(self) -> Tensor | None:
        """The block's own bias for each head and pair of all tokens, [1, heads, N, N]; None where there is none."""
        return self.block.attn.rel_pos.get_bias() if self.biased else None


class RelPosPostNorm(PostNorm):
    """``ResPostRelPosBlock``: norms after the branches, and such a bias."""

    biased = RelPosPreNorm.biased
    position_bias = RelPosPreNorm.position_bias


class ParallelThings(TimmBlock):
    """``ParallelThingsBlock``: the sum of several attention branches, then that of as many MLPs.

    The heads of all branches count as heads of one attention, such as for the mean of the keys.
    """

    PARTS: ClassVar[set[str]] = {"attns", "ffns", "num_parallel"}

    def check(self) -> None:
        """Raise unless the parts of the block are ones that are run."""
        for branch in self.block.attns:
            if unknown := first_unknown(parts_of(branch), {"norm", "attn", "ls", "drop_path"}):
                raise refusal(f"a branch of ParallelThingsBlock has {unknown!r}")
            refuse_hooks(branch)
            check_attention(branch.attn, "'attns' of ParallelThingsBlock")
        refuse_uncounted(self.block.ffns, "'ffns' of ParallelThingsBlock")

    @property
    def attns(self) -> tuple[Any, ...]:
        """The attention modules side by side."""
        return tuple(branch.attn for branch in self.block.attns)

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branches [B, N, C], queries, keys and values of all heads)."""
        outs, found = [], []
        for branch in self.block.attns:
            out, heads = self_attention(branch.attn, branch.norm(x), size, route, place)
            outs.append(branch.drop_path(branch.ls(out)))
            found.append(heads)
        q, k, v = (torch.cat(each, dim=1) for each in list(zip(*found, strict=True))[:3])
        return x + torch.stack(outs).sum(dim=0), Heads(q, k, v)

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branches."""
        return x + torch.stack([ffn(x) for ffn in self.block.ffns]).sum(dim=0)

    def macs(self) -> BlockMacs:
        """MACs of the block's matmuls."""
        return attention_macs(self.attns, linear_macs(self.block.ffns))


class ParallelScaling(TimmBlock):
    """``ParallelScalingBlock``: attention and MLP side by side, from one projection; tokens are merged after both."""

    PARTS: ClassVar[set[str]] = {
        *("in_norm", "in_proj", "in_split", "mlp_bias", "q_norm", "k_norm", "attn_drop", "mlp_drop", "mlp_act"),
        *("out_proj", "attn_out_proj", "mlp_out_proj", "ls", "drop_path"),
        *("num_heads", "head_dim", "scale", "fused_attn"),
    }

    def check(self) -> None:
        """Raise unless the parts of the block are ones that are run."""
        if self.block.scale != self.block.head_dim**-0.5:
            raise refusal("ParallelScalingBlock has a 'scale' other than head_dim ** -0.5")
        refuse_uncounted(self.block, "'blocks'")

    @property
    def mlp_first(self) -> bool:
        """Whether :meth:`attention` adds the MLP branch, too."""
        return True

    @property
    def attns(self) -> tuple[Any, ...]:
        """The block itself, which has the heads."""
        return (self.block,)

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus both branches [B, N, C], queries, keys and values of the heads)."""
        block = self.block
        batch, n, width = x.shape
        x_mlp, q, k, v = torch.split(block.in_proj(block.in_norm(x)), block.in_split, dim=-1)
        if block.mlp_bias is not None:
            x_mlp = x_mlp + block.mlp_bias
        q, k, v = (each.view(batch, n, block.num_heads, block.head_dim) for each in (q, k, v))
        q, k, v = block.q_norm(q).transpose(1, 2), block.k_norm(k).transpose(1, 2), v.transpose(1, 2)
        dropout = block.attn_drop.p if block.training else 0.0
        x_attn = attend(q, k, v, size, dropout=dropout, fused=block.fused_attn, route=route)
        x_attn = x_attn.transpose(1, 2).reshape(batch, n, width)
        x_mlp = block.mlp_drop(block.mlp_act(x_mlp))
        if block.out_proj is not None:
            y = block.out_proj(torch.cat((x_attn, x_mlp), dim=-1))
        else:
            y = block.attn_out_proj(x_attn) + block.mlp_out_proj(x_mlp)
        return x + block.drop_path(block.ls(y)), Heads(q, k, v)

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] as it is: the MLP branch was added before the merge."""
        return x

    def macs(self) -> BlockMacs:
        """MACs of the block's matmuls, all of which run on the tokens before the merge."""
        block = self.block
        return BlockMacs(
            attention_per_token=linear_macs(block),
            attention_per_pair=2 * block.num_heads * block.head_dim,
            mlp_per_token=0,
            metric_dim=block.head_dim,
            width=block.in_proj.in_features,
        )


BLOCKS: dict[type[nn.Module], type[TimmBlock]] = {
    StandardBlock: PreNorm,
    BeitBlock: BeitPreNorm,
    RelPosBlock: RelPosPreNorm,
    ResPostRelPosBlock: RelPosPostNorm,
    EvaBlock: EvaPreNorm,
    ResPostBlock: PostNorm,
    EvaBlockPostNorm: PostNorm,
    ParallelThingsBlock: ParallelThings,
    ParallelScalingBlock: ParallelScaling,
}
"""The adapter of each class of blocks; a subclass needs an entry of its own, since nothing says what it changes."""


def adapt_block(block: nn.Module, model: str) -> TimmBlock:
    """The adapter of a block.

    Args:
        block: of a model.
        model: name of the model's class, for the message.

    Raises:
        UnsupportedModelError: the block, or a part of it, is not known.
    """
    kind = BLOCKS.get(type(block))
    if kind is None:
        unknown = first_unknown(parts_of(block), PreNorm.PARTS)
        raise refusal(f"{type(block).__name__} in 'blocks' of {model}" + (f" has {unknown!r}" if unknown else ""))
    return kind(block)
