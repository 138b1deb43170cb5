"""Weights from a file: ``.safetensors``, or pickled ``.pth`` files read without running anything in them."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from tomebench.errors import ModelError
from tomebench.models.torchvision_vit import is_torchvision, to_timm

_PICKLED = (".pth", ".pt", ".bin")
_WRAPPERS = ("model", "state_dict", "model_state", "state_dict_ema")


def load_checkpoint(model: nn.Module, path: Path) -> str:
    """Load a checkpoint into a timm VisionTransformer, strictly.

    Key names of torchvision's ViTs are translated, those of other ViT codebases and the size of position embeddings by
    timm's own conversion.

    Args:
        model: receives the weights.
        path: ``.safetensors``, or ``.pth``/``.pt``/``.bin`` read with ``weights_only=True``: a file that would need to
            run code is refused, and nothing in it is executed.

    Returns:
        ``"sha256:<16 hex digits>"`` of the file.

    Raises:
        ModelError: no such file, damaged, not only weights, or its tensors do not fit the model.
    """
    state = _read(path)
    if is_torchvision(state):
        state = to_timm(state)
    try:
        state = checkpoint_filter_fn(state, cast(VisionTransformer, model))
    except (AttributeError, KeyError, RuntimeError, AssertionError) as error:
        _check_fit(model, state, path)  # which tensors are not the model's says more
        raise ModelError(f"checkpoint {path}: not the weights of a Vision Transformer ({_short(error)})") from error
    _check_fit(model, state, path)
    model.load_state_dict(state)
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _read(path: Path) -> dict[str, Tensor]:
    state: Any
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: no such file; give the path of a .safetensors or .pth file")
    if path.stat().st_size == 0:
        raise ModelError(f"checkpoint {path}: cannot be read, it is empty; fetch it again")
    try:
        if path.suffix == ".safetensors":
            # load_file maps the file into memory, and takes no name that is not valid UTF-8.
            state = load_file(path) if _is_utf8(path) else load(path.read_bytes())
        elif path.suffix in _PICKLED:
            state = _unpickled(path)
        else:
            raise ModelError(f"checkpoint {path}: unknown file type; use .safetensors or .pth")
    except SafetensorError as error:
        raise ModelError(f"checkpoint {path}: not a readable safetensors file ({_short(error)})") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"checkpoint {path}: damaged, or holds more than weights, and running code from a file is refused; "
            "save its state_dict as .safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"checkpoint {path}: cannot be read ({_short(error)})") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"checkpoint {path}: holds no state_dict of tensors; save one as .safetensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _unpickled(path: Path) -> Any:
    """What a pickled file holds, nothing in it being run.

    Raises:
        pickle.UnpicklingError: it is damaged, or would need to run code.
        OSError, RuntimeError: it cannot be read.
    """
    # What training scripts save beside the weights; a Namespace is a bag of values and runs nothing.
    safe = torch.serialization.safe_globals([argparse.Namespace])
    with warnings.catch_warnings(), safe:  # torch names odd pickles in lines of its own; the caller says it once
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, MemoryError):
            raise
        except Exception as error:
            raise pickle.UnpicklingError(str(error)) from error


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_fit(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Raise with the first three mismatching tensors, if any."""
    wanted = model.state_dict()
    head = state.get("head.weight")
    if head is not None and "head.weight" in wanted and head.shape[0] != wanted["head.weight"].shape[0]:
        raise ModelError(
            f"checkpoint {path}: its head has {head.shape[0]} classes, the model {wanted['head.weight'].shape[0]}; "
            "use weights fine-tuned for the data set"
        )
    wrong = [f"{name} is missing" for name in wanted if name not in state]
    wrong += [f"{name} is unknown to the model" for name in state if name not in wanted]
    wrong += [
        f"{name} is {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(f"checkpoint {path} does not fit the model: {'; '.join(wrong[:3])}{more}; check --model")


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
