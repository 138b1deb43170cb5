"""The demo model: a small Vision Transformer trained on the embedded digits, with its weights."""

from tomebench.models.digits_vit.model import NAME, WEIGHTS, create_model

__all__ = ["NAME", "WEIGHTS", "create_model"]
