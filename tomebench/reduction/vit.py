"""ReducedViT: run a Vision Transformer block by block with fewer tokens after each; SlicedViT: its slicing ceiling.

It wraps a model and changes nothing on it. Tokens and their sizes are passed from block to block as values; the model's
own modules do all the arithmetic. A ``Backbone`` adapts the parts of a model library's ViT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tomebench.errors import SpecError
from tomebench.reduction.backbone import Backbone
from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads, Method
from tomebench.reduction.plan import MergePlan, compose_sources, merge, spread
from tomebench.reduction.positions import check_rotary
from tomebench.reduction.schedule import TokenTrace, token_trace
from tomebench.reduction.tokens import Positions, Tokens
from tomebench.schema import Rope, Route
from tomebench.words import counted


def _of_model(name: str) -> Any:
    """Property that reads an attribute of the wrapped model; AttributeError where the model has none."""
    return property(lambda self: getattr(self.model, name))


class ReducedViT(nn.Module):
    """A ViT that removes tokens in its blocks; it shares the weights of the model that it wraps.

    Args:
        backbone: adapter of the model.
        method: chooses the plan of each layer.
        r_layers: tokens to remove in each block, before the cap.
        prop_attn: proportional attention: a token counts as often as its size, if the method counts sizes.
        attention: how attention is computed, see :mod:`tomebench.reduction.attention`.
        prefix_only: after the attention of the last block keep the prefix tokens only, all that the class head reads.
            The logits stay the same; the last merge and most of the last MLP are saved, at r = 0 too.
        learned: the module of a trained method; it goes to the device and dtype of the model.
        rope: rotation of a merged token, in a model that rotates queries and keys by their place.

    Raises:
        SpecError: ``prefix_only`` for a model whose class head reads the other tokens; options that do not go with this
            number of blocks, or with rotations that are not this model's; a method that needs an MLP of its own after
            attention; or a trained method that is to remove tokens without its module.
    """

    reduces_by_method = True
    """Whether the method says which tokens go, and where in a block."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        r_layers: Sequence[int],
        *,
        prop_attn: bool = True,
        attention: Route = "auto",
        prefix_only: bool = False,
        learned: nn.Module | None = None,
        rope: Rope = "keep",
    ) -> None:
        super().__init__()
        if len(r_layers) != backbone.depth:
            raise ValueError(f"{len(r_layers)} values of r for {backbone.depth} blocks")
        method.check_depth(backbone.depth)
        if any(r_layers):
            check_rotary(backbone.rotary, rope, getattr(method, "metric", ""), getattr(method, "heads", ""))
            if method.reads_mlp and backbone.mlp_first:
                raise SpecError(
                    f"method {type(method).__name__} compares tokens before and after their MLP, which this model "
                    "computes beside its attention; use another method"
                )
        if prefix_only and not backbone.head_reads_prefix_only:
            raise SpecError("prefix_only: the head of this model pools over the other tokens too; leave it out")
        self.model = backbone.model  # registered, so that .to(), .eval() and .parameters() reach the shared weights
        self.backbone = backbone
        self.method = method
        self.r_layers = tuple(r_layers)
        # Of a method that pads, sizes are the mask, without which padding would be attended to.
        self.prop_attn = (prop_attn and method.counts_sizes) or method.pads
        self.attention = attention
        self.prefix_only = prefix_only
        self.rope = rope
        self.constants = Constants()
        if method.trained and self.reduces_by_method and learned is None and any(r_layers):
            raise SpecError(
                f"method {type(method).__name__} needs weights of its own, and is never run with random ones; give "
                "--predictors FILE, which tomebench train-predictors writes"
            )
        at = next(self.model.parameters(), None)
        self.learned = learned if learned is None or at is None else learned.to(at.device, at.dtype)
        self.training = self.model.training

    @property
    def trace(self) -> TokenTrace:
        """Tokens removed and left in every block at the model's own image size."""
        return self._trace(self.backbone.tokens)

    @property
    def token_counts(self) -> list[int]:
        """Tokens after each block at the model's own image size."""
        return list(self.trace.tokens)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, classes]."""
        tokens = self._run(images)
        return self.head(tokens.x, tokens.size)

    # Attributes that timm's tools read, where the wrapped model has them. Listed by name, since passing on every lookup
    # would hide mistakes.

    pretrained_cfg = _of_model("pretrained_cfg")
    default_cfg = _of_model("default_cfg")
    num_classes = _of_model("num_classes")
    num_features = _of_model("num_features")
    embed_dim = _of_model("embed_dim")
    global_pool = _of_model("global_pool")
    num_prefix_tokens = _of_model("num_prefix_tokens")
    get_classifier = _of_model("get_classifier")

    def forward_features(self, images: Tensor, *, unmerge: bool = False) -> Tensor:
        """[B, 3, H, W] -> the tokens that are left, after the final norm [B, N_left, C].

        Args:
            images: of the model's own size.
            unmerge: give every embedded token what the token has that it ended in [B, N, C]; zeros where it was
                dropped.
        """
        if not unmerge:
            return self.features_and_sizes(images)[0]
        *_, (tokens, source) = self.states(images)
        return spread(self.backbone.norm(tokens.x), source)

    def features_and_sizes(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, 3, H, W] -> (the tokens that are left, after the final norm [B, N_left, C], their sizes).

        Sizes are float32 [B, N_left], the patches that each token stands for, 0 for padding; None where all are one.
        """
        tokens = self._run(images)
        return self.backbone.norm(tokens.x), tokens.size

    def forward_head(self, features: Tensor, pre_logits: bool = False, *, size: Tensor | None = None) -> Tensor:
        """Features of :meth:`forward_features` [B, N_left, C] -> logits, the same bits as those of a whole pass.

        Args:
            features: the tokens that are left, after the final norm.
            pre_logits: what the last layer maps to logits instead.
            size: from :meth:`features_and_sizes`, for a class head that averages or pools by attention.

        Raises:
            SpecError: such a class head, merged tokens, and no sizes.
        """
        merged = any(map(self._counts_sizes, self.r_layers)) and not self.prefix_only
        masks = self.method.pads and not self.backbone.head_reads_prefix_only
        if size is None and merged and (masks or self.backbone.head_counts_sizes(self.prop_attn)):
            raise SpecError(
                "the head of this model counts merged tokens by size, which features do not say; use features, size = "
                "merged.features_and_sizes(images) and merged.forward_head(features, size=size)"
            )
        return self.backbone.head(features, size, self.prop_attn, pre_logits=pre_logits)

    def states(self, images: Tensor) -> Iterator[tuple[Tokens, Tensor]]:
        """Run [B, 3, H, W], and yield the tokens before the first block and after every one.

        Yields:
            The tokens, before the final norm; and the token of theirs that each embedded token is part of, int64
            [B, N], -1 where it was dropped.
        """
        tokens = self.embed(images)
        source = torch.arange(tokens.x.shape[1], device=tokens.x.device).expand(tokens.x.shape[:2])
        yield tokens, source
        for layer, r in enumerate(self._trace(tokens.x.shape[1]).r_layers):
            before = tokens.x.shape[1]
            tokens, plan = self._block(layer, r, tokens)
            if plan is not None:
                source = compose_sources(source, plan)
            elif (left := tokens.x.shape[1]) < before:  # sliced off
                source = torch.where(source < left, source, -1)
            yield tokens, source

    @torch.no_grad()
    def source_map(self, images: Tensor) -> Tensor:
        """The final token that each embedded token ended in, int64 [B, N]; -1 where it was dropped."""
        *_, (_, source) = self.states(images)
        return source

    @torch.no_grad()
    def tokens_left(self, images: Tensor) -> Tensor:
        """Tokens of each image after the last block that are not padding, int64 [B]."""
        tokens = self._run(images)
        real = torch.ones(tokens.x.shape[:2], device=tokens.x.device) if tokens.size is None else tokens.size
        return (real > 0).sum(dim=1)

    def attention_kernels(self, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
        """The attention kernel of every block for ``batch`` images at the model's own image size."""
        trace, merged, names = self.trace, False, []
        for layer, (r, n) in enumerate(zip(trace.r_layers, (self.backbone.tokens, *trace.tokens), strict=False)):
            biased = merged and self.prop_attn
            name = self.backbone.attention_kernel(
                layer, self.attention, batch=batch, n=n, biased=biased, dtype=dtype, device=device
            )
            names.append(name)
            merged = merged or self._counts_sizes(r)
        return tuple(names)

    # The stages of a pass. Each is a method of its own so that a subclass can time it or replace it.

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C]."""
        return self.backbone.embed(images)

    def attend(self, layer: int, tokens: Tokens) -> tuple[Tensor, Heads]:
        """Tokens -> (x after the attention residual [B, N, C], queries, keys and values of the heads)."""
        biased = tokens if self.prop_attn or tokens.size is None else tokens._replace(size=None)
        return self.backbone.attention(layer, biased, self.attention)

    def plan(self, ctx: Context) -> MergePlan:
        """Choose the plan of one layer, without gradient."""
        if not torch.is_grad_enabled():
            return self.method.choose(ctx)
        with torch.no_grad():
            return self.method.choose(ctx)

    def merge(self, plan: MergePlan, tokens: Tokens) -> Tokens:
        """Merge tokens, sizes and positions by a plan."""
        x, size = merge(plan, tokens.x, tokens.size, self.constants)
        position = tokens.position and tokens.position.after(plan, tokens.size, self.rope)
        return Tokens(x, size, position)

    def reduce(
        self, layer: int, r: int, tokens: Tokens, x: Tensor, heads: Heads, before_mlp: Tensor | None = None
    ) -> tuple[Tokens, MergePlan | None]:
        """Choose and remove tokens of one block.

        Args:
            layer: the block.
            r: tokens to remove, >= 1.
            tokens: input of the block.
            x: what is reduced, after the attention residual [B, N, C], or after that of the MLP.
            heads: queries, keys and values of the block.
            before_mlp: after the attention residual, of a method that reduces after the MLP.
        """
        bias_size = tokens.size if self.prop_attn else None
        context = Context(
            x, tokens.x, heads, tokens.size, bias_size, r, self.backbone.prefix, layer, self.backbone.depth,
            self.constants, self.backbone.class_token, before_mlp, self.learned,
        )  # fmt: skip
        return self._reduce(context, tokens.position)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> tokens after the MLP residual."""
        return self.backbone.mlp(layer, x)

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """[B, N, C] -> logits [B, classes]."""
        return self.backbone.head(self.backbone.norm(x), size, self.prop_attn)

    def _run(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens after the last block [B, N, C]."""
        tokens = self.embed(images)
        for layer, r in enumerate(self._trace(tokens.x.shape[1]).r_layers):
            tokens, _ = self._block(layer, r, tokens)
        return tokens

    def _trace(self, tokens: int) -> TokenTrace:
        prefix, cap = self.backbone.prefix, self.method.cap
        return token_trace(self.r_layers, tokens, prefix, cap=cap, prefix_only=self.prefix_only)

    def _counts_sizes(self, r: int) -> bool:
        """Whether removing r tokens leaves some of size other than one."""
        return r > 0 and self.sized

    @property
    def sized(self) -> bool:
        """Whether sizes differ from one once tokens are removed."""
        return self.method.merges or self.method.pads

    def _block(self, layer: int, r: int, tokens: Tokens) -> tuple[Tokens, MergePlan | None]:
        """Run one block on tokens [B, N, C]; their sizes stay None as long as all are one."""
        x, heads = self.attend(layer, tokens)
        plan, prefix, depth = None, self.backbone.prefix, self.backbone.depth
        if self.prefix_only and layer == depth - 1:
            left = Tokens(x[:, :prefix], None, tokens.position and tokens.position.first(prefix))
        elif r > 0:
            before_mlp = x if self.method.after_mlp and self.reduces_by_method else None
            x = x if before_mlp is None else self.mlp(layer, x)
            left, plan = self.reduce(layer, r, tokens, x, heads, before_mlp)
            if before_mlp is not None:
                return left, plan
        else:
            left = Tokens(x, tokens.size, tokens.position)
        return Tokens(self.mlp(layer, left.x), left.size, left.position), plan

    def _reduce(self, ctx: Context, position: Positions | None) -> tuple[Tokens, MergePlan | None]:
        plan, n = self.plan(ctx), ctx.x.shape[1]
        if plan.n_out != n - ctx.r:  # or speeds, MACs and tables would be those of another r
            kind, left_over = type(self.method).__name__, counted(n - ctx.r, "token")
            raise SpecError(
                f"method {kind} was to leave {left_over} of {n} in block {ctx.layer}, and leaves {plan.n_out}"
            )
        if plan.size is not None and not self.method.pads:  # or padding would be attended to
            raise SpecError(f"method {type(self.method).__name__} pads its plans; declare pads = True")
        left = self.merge(plan, Tokens(ctx.x, ctx.size, position))
        return left if self.sized else left._replace(size=None), plan


class SlicedViT(ReducedViT):
    """The ceiling: as many tokens after every block, but the surplus is sliced off the end.

    No matching, no merging, no sizes. On the same machine no method that leaves as many tokens can be faster: the time
    that a method takes beyond it is the method's cost, and the gap between it and the MAC ratio is the hardware's. Its
    logits are meaningless.
    """

    reduces_by_method = False

    def _counts_sizes(self, r: int) -> bool:
        return False

    def _reduce(self, ctx: Context, position: Positions | None) -> tuple[Tokens, MergePlan | None]:
        left = ctx.x.shape[1] - ctx.r
        return Tokens(ctx.x[:, :left], None, position and position.first(left)), None
