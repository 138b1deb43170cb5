"""Adapters of model libraries: embedding, blocks and class head of a ViT for ``tomebench.reduction.vit.ReducedViT``."""
