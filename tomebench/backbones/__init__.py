"""How a concrete model exposes embedding, blocks and head to :class:`tomebench.reduction.vit.ReducedViT`."""
