"""Models of transformers, ``--model hf/FOLDER_OR_ID``: build them and load their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tomebench.datasets.class_lists import lists_in_config
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.hf_files import HFFiles, find_files
from tomebench.models.hf_pixels import read_preprocessing
from tomebench.models.preprocess import Preprocessing
from tomebench.models.spec import ModelSpec
from tomebench.models.weights_file import digest, short

_OUTPUTS = ("logits", "image_embeds", "pooler_output")
_UNUSED = ("text_model.", "text_projection", "logit_scale", "logit_bias", "vision_model.head.")
"""Tensors of a file that a vision tower, or a class head that averages, has no use for."""
_SILENT = 100
"""A verbosity above that of all messages of transformers."""
_MOST_PARAMETERS = 20 * 10**9


class HFModel(nn.Module):
    """A ViT of transformers that maps images to logits, or to what it pools if it has no classes.

    Args:
        model: of transformers.
        preprocessing: of its images; None: as the settings of its class say, for speed only.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing

    @property
    def num_classes(self) -> int:
        """Outputs of the class head; 0: the model has none."""
        found = getattr(self.model, "classifier", None) or getattr(self.model, "cls_classifier", None)
        return int(found.out_features) if isinstance(found, nn.Linear) else 0

    def remove_class_head(self) -> None:
        """Let the model give what its class head would read."""
        for name in ("classifier", "cls_classifier", "distillation_classifier"):
            if isinstance(getattr(self.model, name, None), nn.Linear):
                setattr(self.model, name, nn.Identity())

    @property
    def config(self) -> Any:
        """Settings of the vision tower."""
        config: Any = self.model.config
        return getattr(config, "vision_config", config)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, classes], or pooled features [B, C]."""
        found = self.model(pixel_values=images, return_dict=True)
        for name in _OUTPUTS:
            if (output := getattr(found, name, None)) is not None:
                return output
        states: Tensor = found.last_hidden_state  # the encoder has no pooler
        return states.mean(dim=1) if type(self.model).__name__.startswith("Siglip") else states[:, 0]


def is_placeholder(names: ClassNames) -> bool:
    """Whether a list of class names is the one that transformers makes up: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{number}" for number, name in enumerate(names.names))


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which transformers logs nothing, and shows no progress; its errors are reported once."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(_SILENT)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def build_hf(spec: ModelSpec, *, meta: bool, load: bool) -> tuple[HFModel, str, str, list[ClassNames], list[str]]:
    """Build a model of transformers.

    Args:
        spec: its name is ``hf/...``.
        meta: build it without storage, for its shapes only.
        load: load its weights, where it has any.

    Returns:
        The model; its name without the path; its weights, as :class:`tomebench.models.create.LoadedModel` has them;
        lists of its class names; and notes about choices that nobody asked for.

    Raises:
        ModelError: it is not there, cannot be used or is refused, or cannot be built as asked.
        UnsupportedModelError: it is of a class that merging does not know.
        DataError: a list of its class names cannot be read.
    """
    if spec.checkpoint is not None:
        raise ModelError(f"--model {printable(spec.name)} has its own weights; leave --checkpoint out")
    if spec.num_classes is not None:
        raise ModelError(f"--model {printable(spec.name)} has its own class head; leave --num-classes out")
    files = find_files(spec.name, offline=spec.offline, weights=load)
    if spec.evaluated and files.processor is None:
        raise ModelError(
            f"--model {printable(spec.name)}: nothing says how its images are preprocessed; save its image processor "
            "beside it (preprocessor_config.json)"
        )
    notes: list[str] = []
    with quiet():
        pixels = None
        if files.processor is not None:
            pixels = read_preprocessing(spec.name, files.processor, files.model_type, spec.img_size)
        config = _config(spec, files)
        own = _size(config)
        size = spec.img_size or (own if pixels is None else pixels.input_size[-1])
        if size < _patch(config):
            raise ModelError(f"--model {printable(spec.name)} cannot take {size} pixels: that is less than one patch")
        if size != own and spec.img_size is None:
            notes.append(f"{size} pixels, as its image processor says, and not {own}; --img-size changes it")
        if load and files.weights is not None and not meta:
            model, weights = _loaded(spec, files, config), digest(files.weights)
            try:
                resize(model, size)
            except (TypeError, RuntimeError) as error:
                raise ModelError(
                    f"--model {printable(spec.name)} cannot take {size} pixels ({short(error)})"
                ) from error
        else:
            config.image_size = size
            if load and (spec.evaluated or not files.local):
                raise ModelError(
                    f"--model {printable(spec.name)} has no safetensors, and random weights are for speed only; "
                    "save the weights beside its settings"
                )
            model, weights = _built(spec, files, config, meta), f"random:{spec.seed}"
    names = lists_in_config(files.config) if spec.labelled and spec.class_names is None else []
    names = [each for each in names if not is_placeholder(each)]
    whole = HFModel(model.eval(), pixels)
    return whole, files.name, weights, [each for each in names if whole.num_classes], notes


def _config(spec: ModelSpec, files: HFFiles) -> Any:
    """Settings of the class to build."""
    import transformers

    kind: Any = getattr(transformers, files.kind)
    try:
        config = kind.config_class.from_pretrained(str(files.folder), local_files_only=True)
    except Exception as error:
        raise ModelError(f"--model {printable(spec.name)}: its settings are refused ({short(error)})") from error
    tower = getattr(config, "vision_config", config)
    if isinstance(tower, dict):
        raise ModelError(f"--model {printable(spec.name)}: its settings name a vision tower that its class has not")
    if not isinstance(tower.image_size, int) and len({*tower.image_size}) != 1:
        raise ModelError(
            f"--model {printable(spec.name)} takes images of {' x '.join(map(str, tower.image_size))} pixels; only "
            "square ones are supported"
        )
    return config


def _patch(config: Any) -> int:
    size = getattr(config, "vision_config", config).patch_size
    return int(size if isinstance(size, int) else max(size))


def _size(config: Any) -> int:
    size = getattr(config, "vision_config", config).image_size
    return int(size if isinstance(size, int) else size[0])


def _built(spec: ModelSpec, files: HFFiles, config: Any, meta: bool) -> nn.Module:
    """Build a model with random weights, or without storage."""
    import transformers

    kind: Any = getattr(transformers, files.kind)
    model: nn.Module
    for on in ("meta",) if meta else ("meta", "cpu"):  # its parameters are counted before they take memory
        with torch.random.fork_rng(devices=[]), torch.device(on) if on == "meta" else nullcontext():
            torch.manual_seed(spec.seed)
            try:
                model = kind._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
            except Exception as error:
                raise ModelError(f"--model {printable(spec.name)} cannot be built ({short(error)})") from error
        if (count := sum(each.numel() for each in model.parameters())) > _MOST_PARAMETERS:
            raise ModelError(
                f"--model {printable(spec.name)}: its settings make a model of {count / 1e9:.0f} billion parameters, "
                f"more than the {_MOST_PARAMETERS // 10**9} billion that are built"
            )
    return model


def _loaded(spec: ModelSpec, files: HFFiles, config: Any) -> nn.Module:
    """Build a model and load its weights; every tensor must be there and fit, but for a pooler that nothing reads."""
    import transformers

    _built(spec, files, config, meta=True)
    kind: Any = getattr(transformers, files.kind)
    try:
        model, found = kind.from_pretrained(
            str(files.folder),
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"--model {printable(spec.name)}: its weights cannot be loaded ({short(error)})") from error
    missing = sorted({*found["missing_keys"]} - {name for name in found["missing_keys"] if "mask_token" in name})
    if missing and all(name.startswith("pooler.") for name in missing):
        model.pooler, missing = None, []
    unknown = sorted(name for name in found["unexpected_keys"] if not name.startswith(_UNUSED))
    wrong = [f"{name} is missing" for name in missing] + [f"{name} is unknown to the model" for name in unknown]
    wrong += [f"{each[0]} has another shape" for each in found["mismatched_keys"]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        said = printable("; ".join(wrong[:3]))
        raise ModelError(f"--model {printable(spec.name)}: its weights do not fit {files.kind}: {said}{more}")
    result: nn.Module = model
    return result


@torch.no_grad()
def resize(model: nn.Module, size: int) -> None:
    """Interpolate a model's learned positions to images of another size, once, as its own class does in every pass.

    Args:
        model: of transformers, with its weights.
        size: height and width in pixels.
    """
    towers = [each for each in model.modules() if hasattr(each, "embeddings") and hasattr(each, "config")]
    tower: Any = towers[0]
    config, embeddings = tower.config, tower.embeddings
    old, patch = _size(config), config.patch_size
    config.image_size = size
    if size == old:
        return
    patch = patch if isinstance(patch, int) else patch[0]
    learned = getattr(embeddings, "position_embeddings", None)
    table = getattr(embeddings, "position_embedding", None)
    positions = learned if learned is not None else None if table is None else table.weight[None]
    if positions is None:
        return
    prefix = positions.shape[1] - (old // patch) ** 2
    shape = torch.empty(1, (size // patch) ** 2 + prefix, positions.shape[2])
    new = embeddings.interpolate_pos_encoding(shape, size, size)
    if learned is not None:
        embeddings.position_embeddings = nn.Parameter(new)
        embeddings.image_size = embeddings.patch_embeddings.image_size = (size, size)
    else:
        embeddings.position_embedding = nn.Embedding.from_pretrained(new[0], freeze=False)
        embeddings.position_ids = torch.arange(new.shape[1]).expand(1, -1)
        embeddings.image_size = size
