"""The demo models: two small Vision Transformers trained on the embedded digits, with their weights."""

from tomebench.models.digits_vit.model import NAME, ROTARY, create_model, weights_of

__all__ = ["NAME", "ROTARY", "create_model", "weights_of"]
