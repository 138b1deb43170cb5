"""Checkpoint loading: find the state_dict in a file, rename its tensors to timm's names, check the fit, load strictly.

A checkpoint also says how many classes its model's class head has, and how many patches it was trained with.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from timm.models import vision_transformer
from torch import Tensor, nn

from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.torchvision_vit import is_torchvision, to_timm
from tomebench.models.weights_file import digest, find_weights, read_content, short, stamp
from tomebench.words import counted

_TRAINED = ("model", "state_dict", "model_state", "model_state_dict")
_AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
"""Prefixes that DataParallel, torch.compile, Lightning and training code put before a model's tensor names."""
_TABLES = (
    "blocks.0.attn.relative_position_bias_table",
    "blocks.0.attn.rel_pos.relative_position_bias_table",
    "shared_rel_pos.relative_position_bias_table",
)
"""Biases by relative position: one for each way that two of s x s patches lie, (2 s - 1)², or 3 more (class token)."""
_COUNTER = "n_averaged"
"""Entry that torch's AveragedModel keeps among its tensors: the number of states averaged."""


@dataclass(frozen=True)
class Checkpoint:
    """The state_dict of a weights file, under the tensor names of the file."""

    path: Path
    state: Mapping[str, Tensor]
    taken: str | None = None  # which weights were taken, where the file has averaged ones
    note: str | None = None  # the same as a sentence
    content: Mapping[Any, Any] | None = None  # what else the file holds
    files: Sequence[tuple[int, ...]] | None = None  # stamp (size, times) of the file before it was read

    def unwrapped(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors under the file's names, then with one wrapper prefix after the other taken off.

        Raises:
            ModelError: two tensors would have the same name.
        """
        names = {name: name for name in self.state}  # name with prefixes taken off: name in the file
        while True:
            yield {name: self.state[original] for name, original in names.items()}
            shorter: dict[str, str] = {}
            for name, original in names.items():
                inside = next((name.removeprefix(each) for each in _WRAPPERS if name.startswith(each)), name)
                if inside in shorter:
                    raise ModelError(
                        f"checkpoint {printable(self.path)}: holds both {printable(shorter[inside])} and "
                        f"{printable(original)}, which are the same tensor of the model; save one model's state_dict"
                    )
                shorter[inside] = original
            if list(shorter) == list(names):
                return
            names = shorter

    @property
    def num_classes(self) -> int | None:
        """Outputs of the class head; None if no tensor has the name of one."""
        head = self._tensor("head.weight", "heads.head.weight")
        return int(head.shape[0]) if head is not None and head.ndim == 2 else None

    def grid(self, prefix: int) -> tuple[int, int] | None:
        """(Patches per side, pixels per side of a patch), as positions say; None if the file has none, or no patches.

        Args:
            prefix: positions of the model that belong to prefix tokens, tried before the number that the file says.

        Raises:
            ModelError: the patches do not fill a square.
        """
        positions, patches = (
            self._tensor("pos_embed", "encoder.pos_embedding"),
            self._tensor("patch_embed.proj.weight", "conv_proj.weight"),
        )
        if patches is None or patches.ndim != 4:
            return None
        if positions is None and (table := self._tensor(*_TABLES)) is not None and table.ndim == 2:
            side = (math.isqrt(max(table.shape[0] - (3 if prefix else 0), 0)) + 1) // 2
            return (
                (side, int(patches.shape[-1])) if (2 * side - 1) ** 2 + (3 if prefix else 0) == table.shape[0] else None
            )
        if positions is None or positions.ndim != 3:
            return None
        count = positions.shape[1]
        tokens = [self._tensor(name) for name in ("cls_token", "class_token", "dist_token", "reg_token")]
        for extra in (prefix, sum(each.shape[1] for each in tokens if each is not None and each.ndim == 3)):
            side = math.isqrt(max(count - extra, 0))
            if side and side * side == count - extra:
                return side, int(patches.shape[-1])
        raise ModelError(
            f"checkpoint {printable(self.path)}: its position embedding has {count} positions, which is no square of "
            "patches; only models of square images are supported"
        )

    def is_beside(self, path: Path) -> bool:
        """Whether another file is in the same folder."""
        return self.path.parent.resolve() == path.parent.resolve()

    def _tensor(self, *names: str) -> Tensor | None:
        found: Tensor | None = None
        with suppress(ModelError):  # names that would collide are reported where the weights are loaded
            for state in self.unwrapped():
                found = next((state[name] for name in names if name in state), found)
        return found


def read_checkpoint(path: Path, use_ema: bool | None = None) -> Checkpoint:
    """Read the state_dict of a checkpoint file.

    Args:
        path: a file, recognised by its content; an index of shards; or a folder with one of them.
        use_ema: of a file that has both, take the averaged weights (``model_ema``, ``state_dict_ema``) or the trained
            ones; None takes the trained ones, with a note.

    Raises:
        ModelError: no such file, damaged, not only weights, or not the weights asked for.
    """
    path = find_weights(path)
    files, content = stamp(path), read_content(path)
    where = f"checkpoint {printable(path)}"
    trained, averaged = _only(content, _TRAINED, where), _only(content, _AVERAGED, where)
    if use_ema and averaged is None:
        raise ModelError(f"{where}: holds no averaged weights ({', '.join(_AVERAGED)}); leave --use-ema out")
    if use_ema is False and averaged is not None and trained is None:
        raise ModelError(f"{where}: holds averaged weights only ({averaged}); leave --no-use-ema out")
    key = averaged if use_ema or trained is None else trained
    state = content if key is None else content[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{where}: holds no state_dict of tensors; save one as .safetensors")
    if not all(isinstance(name, str) for name in state):
        raise ModelError(f"{where}: its tensors are not named by text; save the model's state_dict")
    state = {name: tensor for name, tensor in state.items() if name != _COUNTER}
    if odd := [f"{printable(name)} is {what}" for name, tensor in state.items() if (what := _not_plain(tensor))]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise ModelError(f"{where}: {odd[0]}{more}; save a state_dict of ordinary tensors in floating point")
    note, taken = None, key if key == averaged else None
    if trained is not None and averaged is not None:
        other = "--no-use-ema" if key == averaged else "--use-ema"
        taken = f"{key}, not {averaged if key == trained else trained}"
        note = f"the checkpoint holds {trained} and {averaged}; {key} is used, {other} takes the other"
    return Checkpoint(path, state, taken, note, content if key is not None else None, files)


def _not_plain(tensor: Tensor) -> str | None:
    """Why a tensor cannot be loaded as a weight (meta, quantised, sparse, complex); None if it can."""
    if tensor.is_meta:
        return "on meta, without values"
    if tensor.is_quantized:
        return f"quantised ({_kind(tensor)})"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested" if tensor.is_nested else f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    return f"complex ({_kind(tensor)})" if tensor.is_complex() else None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load_checkpoint(model: nn.Module, path: Path | Checkpoint, use_ema: bool | None = None) -> str:
    """Load a checkpoint into a timm ViT, strictly: every tensor must fit.

    Tensor names of torchvision's ViTs are translated here; timm's own conversion translates those of other code bases
    and resizes position embeddings. Wrapper prefixes are taken off where every tensor fits without them.

    Args:
        model: receives the weights.
        path: as for :func:`read_checkpoint`, or its result.
        use_ema: as for :func:`read_checkpoint`.

    Returns:
        ``"sha256:<16 hex digits>"`` of the file; then which of its weights were taken, where it has averaged ones.

    Raises:
        ModelError: as :func:`read_checkpoint`, or the tensors do not fit the model.
    """
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path, use_ema)
    tried: list[_Misfit] = []
    for state in checkpoint.unwrapped():
        try:
            fitting = _fitted(model, state)
        except _Misfit as misfit:
            tried.append(misfit)
            continue
        model.load_state_dict(fitting)
        found = digest(checkpoint.path)
        if checkpoint.files not in (None, stamp(checkpoint.path)):  # a training that still runs may have written it
            raise ModelError(
                f"checkpoint {printable(checkpoint.path)}: changed while it was read; copy it, or run the same command "
                "again"
            )
        return found + (f" ({checkpoint.taken})" if checkpoint.taken else "")
    nearest = min(tried, key=lambda misfit: misfit.count)
    raise ModelError(f"checkpoint {printable(checkpoint.path)}: {nearest}") from nearest


class _Misfit(Exception):
    """Some tensors do not fit a model: ``count`` of them; the text names the first."""

    def __init__(self, count: int, text: str) -> None:
        super().__init__(text)
        self.count = count


def _fitted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state_dict to the model's tensor names and shapes; _Misfit where that is impossible."""
    if is_torchvision(state):
        state = to_timm(state)
    _check_floating(model, state)
    _check_patches(model, state)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # of what timm does with some tensors
            warnings.simplefilter("ignore", UserWarning)
            converted = _conversion(model)(state, model)
    except (AttributeError, KeyError, RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        _check_fit(model, state)  # its message, which names tensors, says more than this error
        raise _Misfit(len(state), f"not the weights of a Vision Transformer ({short(error)})") from error
    try:
        _check_fit(model, converted)
    except _Misfit as after:
        try:
            _check_fit(model, state)
        except _Misfit as before:
            # One surplus tensor may look like another code base to timm's conversion: report the smaller misfit.
            raise min(before, after, key=lambda misfit: misfit.count) from after
        raise
    _check_floating(model, converted)  # again, as the conversion may have given tensors the model's names
    return converted


def _conversion(model: nn.Module) -> Callable[[dict[str, Tensor], Any], dict[str, Tensor]]:
    """The conversion of weights of other code bases and sizes that timm has for the family of the model."""
    module = type(model).__module__
    family = import_module(module) if module.startswith("timm.models.") else vision_transformer
    found: Callable[..., dict[str, Tensor]] = getattr(
        family, "checkpoint_filter_fn", vision_transformer.checkpoint_filter_fn
    )
    return found


def _check_floating(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse integer tensors where the model has floating point: loading would drop their quantisation scale."""
    wanted = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    wrong = [name for name in wanted if name in state and not state[name].is_floating_point()]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        kinds = f"{_kind(state[wrong[0]])} instead of {_kind(wanted[wrong[0]])}"
        raise _Misfit(len(wrong), f"{wrong[0]} is {kinds}{more}; save the weights in floating point")


def _check_patches(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse patch embeddings of another patch size or number of channels, which timm's conversion would resample."""
    name = "patch_embed.proj.weight"
    there, wanted = state.get(name), model.state_dict().get(name)
    if there is None or wanted is None or there.ndim != 4 or wanted.ndim != 4:
        return
    if there.shape[1] != wanted.shape[1]:
        channels = counted(there.shape[1], "channel")
        raise _Misfit(1, f"takes images of {channels}, the model of {wanted.shape[1]}; only RGB models are supported")
    if there.shape[2:] != wanted.shape[2:]:
        sizes = [" x ".join(map(str, each.shape[2:])) for each in (there, wanted)]
        raise _Misfit(1, f"its patches are {sizes[0]} pixels, the model's {sizes[1]}; check --model")


def _check_fit(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise _Misfit, naming the first three tensors that are missing, unknown or of another shape, if any."""
    wanted = model.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in state]
    wrong += [f"{printable(name)} is unknown to the model" for name in state if name not in wanted]
    wrong += [
        f"{name} is {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    head = state.get("head.weight")
    if head is not None and "head.weight" in wanted and head.shape[:1] != wanted["head.weight"].shape[:1]:
        sizes = f"its head has {counted(head.shape[0], 'class')}, the model {wanted['head.weight'].shape[0]}"
        raise _Misfit(len(wrong), f"{sizes}; use weights fine-tuned for the data set")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise _Misfit(len(wrong), f"it does not fit the model: {'; '.join(wrong[:3])}{more}; check --model")


def _same(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Whether two states hold the same tensors under the same names."""
    if one.keys() != other.keys() or not all(isinstance(value, Tensor) for value in (*one.values(), *other.values())):
        return False
    return all(value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in one.items())


def _only(content: Any, keys: tuple[str, ...], where: str) -> str | None:
    """The first of ``keys`` that holds a dictionary of tensors in a file's content, else one that holds any dictionary.

    Raises:
        ModelError: several keys hold tensors, and not the same ones.
    """
    there = [key for key in keys if isinstance(content, dict) and isinstance(content.get(key), dict)]
    states = [key for key in there if any(isinstance(value, Tensor) for value in content[key].values())]
    if len(states) > 1 and not all(_same(content[states[0]], content[key]) for key in states[1:]):
        raise ModelError(f"{where}: holds weights as {states[0]} and as {states[1]}; save those that you mean alone")
    return next(iter(states or there), None)
