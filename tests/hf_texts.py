"""Small models of images and texts of transformers, with a tokenizer of whole words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hf_folders import save

WORDS = ("a", "photo", "of", "the", "good", "bad", "kind", "0", "1", "2", "3", "4", "5", "6", ".")
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
VISION = {**SIZES, "image_size": 32, "patch_size": 4, "projection_dim": 24}
TEXT = {
    **SIZES, "vocab_size": 40, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3,
    "projection_dim": 24, "projection_size": 48,
}  # fmt: skip


def model(kind: str) -> Any:
    """A model, ``clip`` or ``siglip``, with redrawn weights."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "clip":
            found: Any = transformers.CLIPModel(
                transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
            )
        else:
            found = transformers.SiglipModel(transformers.SiglipConfig(vision_config=VISION, text_config=TEXT))
        with torch.no_grad():
            for parameter in found.parameters():
                if parameter.ndim == 1 and parameter.numel() > 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                elif parameter.ndim > 1:
                    parameter.copy_(1.5 * torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
            found.logit_scale.fill_(2.0)
            if hasattr(found, "logit_bias"):
                found.logit_bias.fill_(-3.0)
    return found.eval()


def folder(kind: str, where: Path) -> Path:
    """The model in a folder, with its tokenizer and image processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("<s>", "</s>", "<unk>", "<pad>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    save(model(kind), where, "crop")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(where)
    return where
