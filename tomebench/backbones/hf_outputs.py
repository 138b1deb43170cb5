"""ReducedHF: a ViT of transformers that removes tokens, and gives the outputs of the model that it wraps."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from tomebench.backbones.hf_vit import HFViT
from tomebench.errors import SpecError
from tomebench.reduction.plan import spread
from tomebench.reduction.vit import ReducedViT


class ReducedHF(ReducedViT):
    """A ViT of transformers that removes tokens in its layers; called as the model itself is.

    Its outputs are of the model's own classes: ``logits``, or ``last_hidden_state`` and ``pooler_output`` (or
    ``image_embeds``), and ``hidden_states`` if asked for. The tokens of the states are those that are left, or with
    ``unmerge`` all of them, each with the value of the token that it ended in (zeros where it was dropped). Attention
    weights, masks and losses are not given.
    """

    backbone: HFViT

    def forward(  # type: ignore[override] # called as the model is
        self,
        pixel_values: Tensor,
        *,
        unmerge: bool = False,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """[B, 3, H, W] -> the outputs of the model.

        Args:
            pixel_values: images of the model's own size.
            unmerge: give states at full length.
            output_hidden_states: give the tokens before the first layer and after every one, too; None: as the
                model's config says.
            return_dict: False gives a tuple; None: as the model's config says.
            others: further arguments of the model, none of which may ask for anything.

        Raises:
            SpecError: another argument asks for something.
        """
        if asked := [name for name, value in others.items() if value is not None and value is not False]:
            raise SpecError(f"a model that merges tokens takes no {asked[0]}; leave it out")
        config = self.backbone.transformers_model.config
        if output_hidden_states is None:
            output_hidden_states = bool(getattr(config, "output_hidden_states", False))
        if return_dict is None:
            return_dict = bool(getattr(config, "return_dict", True))
        hidden: list[Tensor] = []
        if output_hidden_states or unmerge:
            for tokens, source in self.states(pixel_values):
                hidden.append(spread(tokens.x, source) if unmerge else tokens.x)
        else:
            tokens = self._run(pixel_values)
        features = self.backbone.norm(tokens.x)
        kind, found = self.backbone.outputs(features, tokens.size, self.prop_attn)
        if "logits" not in found:
            found["last_hidden_state"] = spread(features, source) if unmerge else features
        states = {"hidden_states": tuple(hidden)} if output_hidden_states else {}
        output = self._class(kind)(**found, **states)
        return output if return_dict else output.to_tuple()

    def _class(self, name: str) -> Any:
        """A class of outputs, of the model's own module or of all models."""
        from transformers import modeling_outputs

        own = sys.modules[type(self.backbone.transformers_model).__module__]
        return getattr(own, name, None) or getattr(modeling_outputs, name)
