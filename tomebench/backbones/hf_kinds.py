"""Table of transformers' ViTs: where the parts of each class of models are, and how its head reads the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Reading = Literal[
    "first", "first of two", "first and mean", "mean", "pooler", "norm of first", "norm of mean", "attention"
]
"""How a head reads tokens: the class token; the mean of two heads, of class and distillation token; the class token
beside the mean of patches; the mean of patches; a module that reads the class token; the norm of the class token, or of
the mean of patches; attention pooling."""


@dataclass(frozen=True)
class Tower:
    """Names of the parts of a vision tower."""

    layers: str
    norm: str = ""  # after the last layer; "": none
    before: str = ""  # a norm before the first layer
    others: tuple[str, ...] = ()  # parts that the head reads with, or that nothing reads


@dataclass(frozen=True)
class Kind:
    """A class of models."""

    module: str  # of transformers, in which it is
    tower: Tower
    reads: Reading
    inside: str = ""  # name of the tower in the model; "": it is the tower
    heads: tuple[str, ...] = ()  # linear layers that read what was pooled
    output: str = "BaseModelOutputWithPooling"  # class of its outputs


_VIT = Tower("layers", "layernorm", others=("pooler",))
_DINO = Tower("encoder.layer", "layernorm")
_CLIP = Tower("encoder.layers", before="pre_layrnorm", others=("post_layernorm",))
_SIGLIP = Tower("encoder.layers", "post_layernorm", others=("head",))
_BEIT = Tower("layers", "layernorm", others=("pooler", "shared_position_bias"))
_CLASSIFIER = (("classifier",), "ImageClassifierOutput")
KINDS: Mapping[str, Kind] = {
    "ViTForImageClassification": Kind("vit", _VIT, "first", "vit", *_CLASSIFIER),
    "ViTModel": Kind("vit", _VIT, "pooler"),
    "DeiTForImageClassification": Kind("deit", _VIT, "first", "deit", *_CLASSIFIER),
    "DeiTForImageClassificationWithTeacher": Kind(
        "deit",
        _VIT,
        "first of two",
        "deit",
        ("cls_classifier", "distillation_classifier"),
        "DeiTForImageClassificationWithTeacherOutput",
    ),
    "DeiTModel": Kind("deit", _VIT, "pooler"),
    "Dinov2ForImageClassification": Kind("dinov2", _DINO, "first and mean", "dinov2", *_CLASSIFIER),
    "Dinov2Model": Kind("dinov2", _DINO, "first"),
    "Dinov2WithRegistersForImageClassification": Kind(
        "dinov2_with_registers", _DINO, "first and mean", "dinov2_with_registers", *_CLASSIFIER
    ),
    "Dinov2WithRegistersModel": Kind("dinov2_with_registers", _DINO, "first"),
    "DINOv3ViTModel": Kind("dinov3_vit", Tower("model.layer", "norm", others=("rope_embeddings",)), "first"),
    "SiglipForImageClassification": Kind("siglip", _SIGLIP, "mean", "vision_model", *_CLASSIFIER),
    "SiglipVisionModel": Kind("siglip", _SIGLIP, "attention"),
    "CLIPForImageClassification": Kind("clip", _CLIP, "mean", "vision_model", *_CLASSIFIER),
    "CLIPVisionModel": Kind("clip", _CLIP, "norm of first"),
    "CLIPVisionModelWithProjection": Kind(
        "clip", _CLIP, "norm of first", "vision_model", ("visual_projection",), "CLIPVisionModelOutput"
    ),
    "BeitForImageClassification": Kind("beit", _BEIT, "norm of mean", "beit", *_CLASSIFIER),
    "BeitModel": Kind("beit", _BEIT, "norm of mean", output="BeitModelOutputWithPooling"),
}
"""The classes that are adapted, by name; a subclass needs an entry of its own, since nothing says what it changes."""
TRANSFORMERS: tuple[str, ...] = tuple(
    f"transformers.models.{kind.module}.modeling_{kind.module}.{name}" for name, kind in KINDS.items()
)
"""These classes by module and name."""
