"""Build a model from its name (alias, preset, timm id with tag), with random, packaged, pretrained or given weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import timm
import torch
from timm.models import get_deprecated_models, get_pretrained_cfg
from torch import nn
from torch.overrides import TorchFunctionMode

from tomebench.ambient import in_usual_state
from tomebench.datasets.class_lists import CONFIG, read_class_names
from tomebench.datasets.classes import ORDERS, ClassHead, ClassNames
from tomebench.datasets.decode import printable
from tomebench.datasets.files import user_path
from tomebench.errors import ModelError
from tomebench.models import mae_vit, torchvision_vit
from tomebench.models.aliases import ALIASES, MAE, PRESETS, TORCHVISION
from tomebench.models.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from tomebench.models.digest import tensors_digest
from tomebench.models.hf_files import is_hf
from tomebench.models.image_size import check_square, grid_of, prefix_positions, remember_size
from tomebench.models.published import fetch
from tomebench.models.sources import Source, located_name, source_of
from tomebench.models.spec import PREFIX, ModelSpec
from tomebench.models.stated import class_names, other_preprocessing
from tomebench.models.weights_file import short


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run (fp32, on the CPU or on meta, in evaluation mode), what its weights are, its class head."""

    model: nn.Module
    timm_id: str  # with tag; for a preset its name, for a local folder its architecture
    weights: str  # random:<seed>; sha256:<digest> of a file, or of tensors: then "(pretrained)" if they were fetched
    head: ClassHead = field(default_factory=lambda: ClassHead(0))
    notes: tuple[str, ...] = ()  # choices that nobody asked for, such as an image size, as sentences


def resolve_model_name(name: str) -> str:
    """Resolve a name to the full timm id with tag; presets, and models of a hub or folder, keep their names.

    Raises:
        ModelError: unknown name or tag; the message names the nearest one.
    """
    if name in PRESETS:
        return name
    if is_hf(name):
        return name
    if (located := located_name(name)) is not None:
        return located
    name = ALIASES[name].timm_id if name in ALIASES else name.removeprefix("timm/")
    base, _, tag = name.partition(".")
    renamed = get_deprecated_models()
    if not tag and base in renamed:
        if renamed[base] is None:
            raise ModelError(f"timm has removed {base!r} and has nothing in its place; take another --model")
        return resolve_model_name(str(renamed[base]))
    if not timm.is_model(base):
        if name.startswith(PREFIX):
            raise ModelError(f"{printable(name)} was handed over in Python and cannot be built by name; do so again")
        if "/" in name or "\\" in name:
            raise ModelError(f"unknown model {printable(name)[:80]!r}: {_path_or_hub(name)}")
        near = difflib.get_close_matches(base, [*PRESETS, *ALIASES], n=1)
        near += difflib.get_close_matches(base, timm.list_models(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see: tomebench list models"
        raise ModelError(f"unknown model {name[:80]!r}; {hint}")
    if tag:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
        if tag not in tags:
            hint = f"it has {', '.join(tags)}" if tags else "it has none"
            raise ModelError(f"model {base!r} has no tag {tag!r}; {hint}")
        return name
    config = get_pretrained_cfg(base, allow_unregistered=True)
    return f"{base}.{config.tag}" if config is not None and config.tag else base


def _path_or_hub(name: str) -> str:
    """Hint for an unknown name that looks like a path or a hub repository: how to write it."""
    path = user_path(name)
    if (path / CONFIG).is_file():
        return f"a folder with a model is --model local-dir:{name}"
    if path.is_file():
        return f"a file of weights is --checkpoint {name}, beside the --model that it belongs to"
    return f"a model on the Hugging Face hub is --model hf-hub:{name}, one in a folder --model local-dir:{name}"


@dataclass(frozen=True)
class WeightsFile:
    """Name of a published weights file, and where it is published."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}, published {self.where}"


def weights_file(name: str) -> WeightsFile | None:
    """The published file of a preset's weights; None for packaged weights and for those that timm fetches."""
    if name in TORCHVISION:
        preset = TORCHVISION[name]
        return WeightsFile(torchvision_vit.file_name(preset), f"by torchvision as {preset.weights}")
    if name in MAE:
        return WeightsFile(MAE[name].file, f"at {MAE[name].url}")
    return None


@in_usual_state
def build_model(spec: ModelSpec | str, *, meta: bool = False, **settings: Any) -> LoadedModel:
    """Build a model with random weights, in the class head and image size that its weights need.

    Needs the network for the settings of a model on a hub only.

    Args:
        spec: the model; or its name, and as ``settings`` what else a :class:`ModelSpec` says.
        meta: build it without storage, for its shapes only.

    Raises:
        ModelError: unknown name, a file that cannot be used, or a size that the model cannot take.
        DataError: a list of class names that cannot be read.
    """
    spec = spec if isinstance(spec, ModelSpec) else ModelSpec(spec, **settings)
    return _headed(_built(spec, meta), spec)


def _built(spec: ModelSpec, meta: bool) -> LoadedModel:
    if is_hf(spec.name):
        return _of_transformers(spec, meta=meta, load=False)
    source = source_of(spec.name, spec.offline)
    return _build(spec, source, _read(spec, source), meta)


def _headed(loaded: LoadedModel, spec: ModelSpec, *, evaluated: bool = False) -> LoadedModel:
    """Put a class head from a file on a model, where its specification has one."""
    if spec.class_head is None:
        return loaded
    from tomebench.models.headed import with_class_head

    return with_class_head(loaded, spec.class_head, evaluated=evaluated)


def _of_transformers(spec: ModelSpec, *, meta: bool, load: bool) -> LoadedModel:
    """Build a model of transformers, whose files say all about it."""
    from tomebench.models.hf_model import build_hf

    model, name, weights, names, notes = build_hf(spec, meta=meta, load=load)
    return LoadedModel(model, name, weights, head_of(model, spec.class_names, names), tuple(notes))


def _read(spec: ModelSpec, source: Source | None) -> Checkpoint | None:
    """Read the weights file of a model, if its specification or source has one."""
    path = spec.checkpoint if spec.checkpoint is not None else source.weights if source is not None else None
    return None if path is None else read_checkpoint(path, spec.use_ema)


def _build(spec: ModelSpec, source: Source | None, file: Checkpoint | None, meta: bool) -> LoadedModel:
    timm_id = resolve_model_name(spec.name)
    notes = [file.note] if file is not None and file.note else []
    num_classes, size = _num_classes(spec, file), spec.img_size

    def create(size: int | None, on: str) -> Any:
        given = {"img_size": size, "num_classes": num_classes}
        kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return _create(timm_id, source, kwargs, on, spec.seed)

    own = create(None, "meta") if file is not None or source is not None else None
    if own is not None:
        check_square(spec.name, own)
    if own is not None and file is not None and size is None:
        grid, found = grid_of(own), file.grid(prefix_positions(own))
        if grid is not None and found is not None and grid != (found[0], found[0]):
            size = found[0] * found[1]
            notes.append(f"{size} pixels, as the position embedding of the checkpoint says; --img-size changes it")
    model = own if own is not None and meta and size is None else create(size, "meta" if meta else "cpu")
    check_square(spec.name, model)
    if getattr(getattr(model, "patch_embed", None), "num_patches", 1) == 0:
        raise ModelError(f"model {timm_id} cannot be built at {size} pixels: that is less than one patch")
    if file is not None and (source is None or not file.is_beside(source.config)):
        notes += filter(None, [other_preprocessing(file, model, timm_id)])
    shown = timm_id if source is None or source.weights is None else source.architecture
    return LoadedModel(model.eval(), shown, f"random:{spec.seed}", _head(spec, model, source, file), tuple(notes))


def _num_classes(spec: ModelSpec, file: Checkpoint | None) -> int | None:
    """Outputs of the class head: as asked for, else as in the checkpoint; None: the model's own."""
    there = None if file is None else file.num_classes
    if file is not None and spec.num_classes is not None and there not in (None, spec.num_classes):
        raise ModelError(
            f"checkpoint {printable(file.path)}: its head has {there} classes, --num-classes says {spec.num_classes}; "
            "leave --num-classes out"
        )
    return spec.num_classes if spec.num_classes is not None else there


def _create(timm_id: str, source: Source | None, kwargs: dict[str, Any], on: str, seed: int) -> nn.Module:
    """Create the architecture with seeded random weights on a device (``cpu`` or ``meta``)."""
    size = kwargs.get("img_size")
    with torch.random.fork_rng(devices=[]), torch.device(on), _NoFilling() if on == "meta" else nullcontext():
        torch.manual_seed(seed)
        model: nn.Module
        try:
            if timm_id in TORCHVISION:
                model = torchvision_vit.create_model(TORCHVISION[timm_id], **kwargs)
            elif timm_id in MAE:
                model = mae_vit.create_model(MAE[timm_id], **kwargs)
            elif timm_id in PRESETS:
                from tomebench.models.digits_vit import create_model

                model = create_model(timm_id, **kwargs)
            elif source is not None:
                model = source.create(**kwargs)
            else:
                model = timm.create_model(timm_id, **kwargs)
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            what = f"at {size} pixels" if size is not None else "with its default settings"
            raise ModelError(f"model {printable(timm_id)} cannot be built {what}: {short(error)}") from error
    return remember_size(model, size)


_FILLING = frozenset({"uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "zero_", "fill_"})


class _NoFilling(TorchFunctionMode):
    """Leaves out what fills a tensor in place: without storage it has no effect, and costs most of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _FILLING and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _head(spec: ModelSpec, model: Any, source: Source | None, file: Checkpoint | None) -> ClassHead:
    """The class head, with the class names that come with the model unless the user gives a list."""
    found: list[ClassNames] = []
    if spec.labelled and spec.class_names is None:
        found += [] if file is None else class_names(file)
        if source is not None and (file is None or not file.is_beside(source.config)):
            # Weights whose class head has another size than the settings say have other classes.
            found += [names for names in source.names() if file is None or len(names.names) == model.num_classes]
    return head_of(model, spec.class_names, found)


def head_of(model: nn.Module, class_names: str | None, found: Sequence[ClassNames]) -> ClassHead:
    """Describe the class head of a model: number of outputs, and the lists of class names known for them.

    Args:
        model: its ``num_classes`` is the number of outputs.
        class_names: what the user gives: a file with the names, or one of ``ORDERS``.
        found: lists of names that come with the model.

    Raises:
        DataError: the file cannot be read.
    """
    num_classes = int(getattr(model, "num_classes", 0) or 0)
    if class_names in ORDERS:
        return ClassHead(num_classes, order=class_names)
    chosen = None if class_names is None else read_class_names(user_path(class_names))
    return ClassHead(num_classes, tuple(found), chosen)


@in_usual_state
def load_model(spec: ModelSpec | str, *, pretrained: bool = False, **settings: Any) -> LoadedModel:
    """Build a model and load its weights: from a checkpoint or folder, else the published ones or random ones.

    Args:
        spec: the model; or its name, and as ``settings`` what else a :class:`ModelSpec` says.
        pretrained: where there is no file, fetch the published weights through timm. The demo models always have their
            packaged ones; the other presets need a file.

    Raises:
        ModelError: unknown name, or weights that cannot be had or do not fit.
        DataError: a list of class names that cannot be read.
    """
    spec = spec if isinstance(spec, ModelSpec) else ModelSpec(spec, **settings)
    return _headed(_with_weights(spec, pretrained), spec, evaluated=spec.evaluated)


def _with_weights(spec: ModelSpec, pretrained: bool) -> LoadedModel:
    if is_hf(spec.name):
        return _of_transformers(spec, meta=False, load=True)
    published = weights_file(spec.name)
    if pretrained and spec.checkpoint is None and published is not None:
        raise ModelError(f"{spec.name} takes its weights from a file: {published}; pass it with --checkpoint")
    source = source_of(spec.name, spec.offline)
    file = _read(spec, source)
    loaded = _build(spec, source, file, meta=False)
    if file is not None:
        return replace(loaded, weights=load_checkpoint(loaded.model, file))
    if loaded.timm_id in PRESETS and published is None and spec.num_classes is None:
        from tomebench.models.digits_vit import weights_of

        return replace(loaded, weights=load_checkpoint(loaded.model, weights_of(loaded.timm_id)))
    if not pretrained:
        return loaded
    fetched = remember_size(fetch(loaded.timm_id, spec.img_size, spec.offline), spec.img_size)
    there = int(getattr(fetched, "num_classes", 0) or 0)
    if spec.num_classes not in (None, there):
        raise ModelError(
            f"the pretrained weights of {loaded.timm_id} have {there} classes, and --num-classes {spec.num_classes} "
            "would leave the head random; pass your own weights with --checkpoint"
        )
    # The repository of a name may change its weights: only a digest of the tensors identifies them.
    return replace(loaded, model=fetched, weights=f"sha256:{tensors_digest(fetched)} (pretrained)")
