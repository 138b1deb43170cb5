"""Class embeddings by the text model of a CLIP or SigLIP of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tomebench.datasets.decode import printable
from tomebench.errors import ConfigError, ModelError
from tomebench.models.hf_files import TOWERS, find_files
from tomebench.models.hf_model import quiet
from tomebench.models.weights_file import digest, short

_BATCH = 64


class Embedded(NamedTuple):
    """Class embeddings, and what the checkpoint says of scores by them."""

    embeddings: Tensor  # float32 [classes, D], of length one
    scale: float
    bias: float
    model: str
    weights: str


def embed_classes(name: str, classes: Sequence[str], templates: Sequence[str], *, offline: bool = False) -> Embedded:
    """Embed class names in sentences; of several sentences the mean, of embeddings of length one.

    Args:
        name: ``hf/FOLDER`` or ``hf/ORG/NAME`` of a model of images and texts.
        classes: their names.
        templates: sentences with ``{}`` where the name goes.
        offline: never touch the network.

    Raises:
        ConfigError: a template has no place for the name, or more than one.
        ModelError: the model has no text model, or it or its tokenizer cannot be used.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"--template {printable(template)[:80]!r}: give a sentence with one {{}} for the name")
    files = find_files(name, offline=offline)
    if files.whole not in TOWERS or files.weights is None:
        raise ModelError(
            f"--model {printable(name)} is no {' or '.join(TOWERS)} with weights, which alone have a text model; embed "
            "the classes with another program, and write them as the page on models says"
        )
    with quiet():
        model, tokenizer = _text_model(name, files.folder, files.whole)
        length = model.config.text_config.max_position_embeddings
        padding = "max_length" if files.whole == "SiglipModel" else True  # as each was trained
        total: Tensor | None = None
        for template in templates:
            texts = [template.replace("{}", each) for each in classes]
            if files.whole == "SiglipModel":  # trained on lower case, which the tokenizer of SigLIP 2 leaves to others
                texts = [text.lower() for text in texts]
            found = torch.cat(
                [
                    _features(
                        model,
                        tokenizer(
                            texts[first : first + _BATCH],
                            padding=padding,
                            truncation=True,
                            max_length=length,
                            return_tensors="pt",
                        ),
                    )
                    for first in range(0, len(texts), _BATCH)
                ]
            )
            total = found if total is None else total + found
    if total is None:
        raise ConfigError("give one --template or more")
    bias = getattr(model, "logit_bias", None)
    return Embedded(
        total / total.norm(dim=-1, keepdim=True),
        model.logit_scale.detach().exp().item(),
        0.0 if bias is None else bias.item(),
        files.name,
        digest(files.weights),
    )


def _text_model(name: str, folder: Path, kind: str) -> tuple[Any, Any]:
    import transformers

    try:
        loaded, found = getattr(transformers, kind).from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise ModelError(
            f"--model {printable(name)}: its text model or tokenizer cannot be loaded ({short(error)}); save both in "
            "its folder, and install what they need with pip install 'tomebench[hf]'"
        ) from error
    if missing := sorted(found["missing_keys"]) or sorted(str(each[0]) for each in found["mismatched_keys"]):
        raise ModelError(
            f"--model {printable(name)}: its weights have no {printable(missing[0])}, or one of another shape; save "
            "the whole model"
        )
    return loaded.eval(), tokenizer


@torch.no_grad()
def _features(model: Any, texts: Any) -> Tensor:
    """Embeddings of texts [texts, D], of length one."""
    known = {key: value for key, value in texts.items() if key in ("input_ids", "attention_mask")}
    found = model.get_text_features(**known)
    embeddings: Tensor = getattr(found, "pooler_output", found)
    return embeddings / embeddings.norm(dim=-1, keepdim=True)
