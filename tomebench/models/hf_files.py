"""Files of a model that transformers saved, in a folder or on the hub: found, and checked before any is loaded.

Weights are read from safetensors only, and no code of a repository is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from tomebench.backbones.adapt import HF_CLASSES
from tomebench.datasets.class_lists import CONFIG
from tomebench.datasets.decode import printable
from tomebench.datasets.files import user_path
from tomebench.errors import ModelError, UnsupportedModelError
from tomebench.extras import is_installed
from tomebench.models.sources import quiet_hub
from tomebench.models.weights_file import shard_names, short
from tomebench.regular import read_bytes

PREFIX = "hf/"
"""Start of the name of a model of transformers: ``hf/FOLDER`` or ``hf/ORG/NAME``, with ``@REVISION`` if wanted."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS = (
    *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "spiece.model"),
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_OLDEST = (5, 19)
"""Release of transformers from which the parts of models have the names that adapters know."""
_LARGEST = 16 << 20
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
TOWERS = {"SiglipModel": "SiglipVisionModel", "CLIPModel": "CLIPVisionModelWithProjection"}
"""Models of images and texts, of which the vision tower is built."""
_MOST: Mapping[str, float] = {
    "hidden_size": 16_384,
    "num_hidden_layers": 512,
    "num_attention_heads": 1_024,
    "intermediate_size": 262_144,
    "image_size": 8_192,
    "patch_size": 1_024,
    "num_register_tokens": 4_096,
    "mlp_ratio": 64,
    "projection_dim": 65_536,
    "num_labels": 100_000,
    "rope_theta": 1e12,
}
"""Largest value of each setting that sizes depend on; more than ten times that of any published model."""
_MAY_BE_ZERO = ("num_register_tokens", "num_labels")


@dataclass(frozen=True)
class HFFiles:
    """A checked model of transformers."""

    name: str  # hf/NAME of the folder, or hf/ORG/NAME
    folder: Path
    local: bool  # a folder of the user's, not a model of the hub
    whole: str  # name of the class that was saved, as ``transformers`` exports it
    kind: str  # that of the class to build: its vision tower, or itself
    weights: Path | None  # safetensors, or the index of its shards; None where there are none
    model_type: str
    processor: Mapping[str, Any] | None  # settings of its image processor; None where there are none

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.folder / CONFIG


def is_hf(name: str) -> bool:
    """Whether a model's name is that of a model of transformers."""
    return name.startswith(PREFIX)


def find_files(name: str, *, offline: bool = False, weights: bool = True) -> HFFiles:
    """Find a model of transformers in a folder, the local cache or on the hub, and check its files.

    Args:
        name: ``hf/FOLDER`` or ``hf/ORG/NAME``, with ``@REVISION`` if wanted.
        offline: never touch the network.
        weights: fetch them, too, where the model is on the hub.

    Raises:
        ModelError: transformers is not installed, the model is not there, or a file cannot be used or is refused.
        UnsupportedModelError: it is of a class that merging does not know.
    """
    if not is_installed("transformers"):
        raise ModelError(f"--model {printable(name)} needs the transformers library; pip install 'tomebench[hf]'")
    if _release(there := version("transformers")) < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise ModelError(
            f"--model {printable(name)} needs transformers {wanted} or newer, not {there}; "
            "pip install -U 'tomebench[hf]'"
        )
    where = name.removeprefix(PREFIX)
    path = user_path(where)
    if path.is_dir():
        folder, shown = path, PREFIX + (path.resolve().name or "model")
    elif where.startswith(("/", ".", "~")) or where.count("/") != 1:
        raise ModelError(f"--model {printable(name)}: no such folder; give hf/FOLDER, or hf/ORG/NAME on the hub")
    else:
        folder, shown = _snapshot(name, where, offline, weights), name
    allowed = [folder.resolve(), Path(constants.HF_HUB_CACHE).resolve()]  # files of the cache are links into it
    for file in _read_files(folder):
        if not any(file.resolve().is_relative_to(root) for root in allowed):
            raise ModelError(
                f"--model {printable(name)}: {printable(file.name)} is a link to a file outside of the folder; put the "
                "file itself there"
            )
    config = _settings(name, folder / CONFIG)
    kind = _kind(name, config)
    for part in _mappings(config):
        _check_sizes(name, part)
    if "transformers_weights" in config or any(folder.glob("shard-*.safetensors")):
        raise ModelError(f"--model {printable(name)}: its weights are not in {WEIGHTS[0]} or its shards; save it again")
    found = {each: _settings(name, folder / each) for each in PROCESSORS if (folder / each).is_file()}
    if (folder / TOKENIZERS[0]).is_file():
        _settings(name, folder / TOKENIZERS[0])
    nested = found.get(PROCESSORS[1], {}).get("image_processor")
    processor = nested if isinstance(nested, dict) else found.get(PROCESSORS[0])
    weighed = _weights(name, folder)
    if weighed is not None:
        _check_types(name, weighed)
    return HFFiles(
        shown,
        folder,
        path.is_dir(),
        config["architectures"][0],
        kind,
        weighed,
        str(config.get("model_type")),
        processor,
    )


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _snapshot(name: str, where: str, offline: bool, weights: bool) -> Path:
    """Folder in the local cache of a model on the hub; what is missing there is fetched."""
    repository, _, revision = where.partition("@")
    wanted = [CONFIG, *PROCESSORS, *TOKENIZERS, *([*WEIGHTS, "model-*.safetensors"] if weights else [])]
    last: Exception | None = None
    usable: Path | None = None
    for local in (True, False):
        if not local and (offline or constants.HF_HUB_OFFLINE):
            break
        try:
            with quiet_hub(offline):
                found = Path(
                    snapshot_download(
                        repository, revision=revision or None, allow_patterns=wanted, local_files_only=local
                    )
                )
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
            last = error
            continue
        if not local:
            return found
        if (found / CONFIG).is_file() and (not weights or any((found / each).is_file() for each in WEIGHTS)):
            usable = found
            if any((found / each).is_file() for each in PROCESSORS):
                return found
    if usable is not None:  # a model without image processor, or one whose processor cannot be fetched now
        return usable
    if offline or constants.HF_HUB_OFFLINE:
        asked = "--offline" if offline else "HF_HUB_OFFLINE"
        raise ModelError(
            f"{asked}: {printable(repository)} is not in the local cache ({constants.HF_HUB_CACHE}); download it "
            "beforehand, or give a folder with --model hf/FOLDER"
        )
    raise ModelError(
        f"--model {printable(name)} cannot be fetched ({'no answer' if last is None else short(last)}); check the "
        "name, or give a folder with --model hf/FOLDER"
    ) from last


def _read_files(folder: Path) -> Iterator[Path]:
    """The files that loading may read, as far as they are there."""
    for name in (CONFIG, *PROCESSORS, *TOKENIZERS, *WEIGHTS):
        if (folder / name).is_symlink() or (folder / name).exists():
            yield folder / name
    if (index := folder / WEIGHTS[1]).is_file():
        for name in shard_names(index):
            if not name.endswith(".safetensors"):
                raise ModelError(f"{printable(index)}: names {printable(name)[:80]}, which is no file of safetensors")
            yield folder / name


def _settings(name: str, path: Path) -> dict[str, Any]:
    """Read a file of settings; refuse one that wants code of the repository to run."""
    what = f"--model {printable(name)}: {path.name}"
    try:
        content = json.loads(read_bytes(str(path), most=_LARGEST), parse_constant=_no_number)
    except FileNotFoundError as error:
        raise ModelError(f"{what} is not there; give a folder that transformers saved a model in") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{what} cannot be read ({short(error)}); save the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{what} holds no settings; save the model again")
    for part in _mappings(content):
        if "auto_map" in part:
            raise ModelError(
                f"{what} wants code of the repository to run (auto_map), which is refused; load the model with it "
                "yourself, and save it as one of transformers' own classes"
            )
        if part.get("quantization_config"):
            raise ModelError(f"{what} says that the weights are quantised; give those in floating point")
    return content


def _mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """A dictionary of JSON, and all in it at any depth."""
    if isinstance(content, dict):
        yield content
    for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _mappings(each)


def _no_number(text: str) -> float:
    """Refuse NaN and infinities, which JSON does not have and which would be in every output."""
    raise ValueError(f"it holds {text}")


def _kind(name: str, config: Mapping[str, Any]) -> str:
    """Name of the class to build; UnsupportedModelError for one that is not adapted."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        if isinstance(config.get("architecture"), str):
            raise ModelError(
                f"--model {printable(name)}: timm saved this model; give --model local-dir:FOLDER or hf-hub:ORG/NAME"
            )
        raise ModelError(f"--model {printable(name)}: its {CONFIG} does not name one class under architectures")
    kind = TOWERS.get(architectures[0], architectures[0])
    if kind not in HF_CLASSES:
        raise UnsupportedModelError(
            f"--model {printable(name)}: {printable(kind)[:80]} of transformers, which token merging does not know how "
            "to run; tomebench list models --all says which models it does"
        )
    return kind


def _check_sizes(name: str, config: Mapping[str, Any]) -> None:
    if (channels := config.get("num_channels", 3)) != 3:
        raise ModelError(
            f"--model {printable(name)} takes images of {printable(str(channels))[:40]} channels; only RGB models "
            "can be measured"
        )
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and len(labels) > _MOST["num_labels"]:
        raise ModelError(
            f"--model {printable(name)}: id2label in {CONFIG} has {len(labels)} classes, too many to count"
        )
    for key, most in _MOST.items():
        value = config.get(key)
        for number in value if isinstance(value, list) else [value]:
            if number is None:
                continue
            least = 0 if key in _MAY_BE_ZERO else 1
            if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
                raise ModelError(
                    f"--model {printable(name)}: {key} in {CONFIG} is {printable(str(number))[:40]}; a number from "
                    f"{least} to {most} is expected"
                )


def _check_types(name: str, weights: Path) -> None:
    """Refuse weights of whole numbers or of eight bits, which a scale would have to go with."""
    files = [weights] if weights.suffix == ".safetensors" else [weights.parent / each for each in shard_names(weights)]
    for file in files:
        try:
            with safe_open(file, "pt") as content:
                names = [each for each in content.keys() if each.endswith(("weight", "bias"))]  # noqa: SIM118 (no dict)
                types = {content.get_slice(each).get_dtype() for each in names}
        except (SafetensorError, OSError):
            continue  # reported where they are loaded
        if odd := sorted(types - {"F64", "F32", "F16", "BF16"}):
            raise ModelError(
                f"--model {printable(name)}: its weights are numbers of type {odd[0]}, as in a quantised model; give "
                "those in floating point"
            )


def _weights(name: str, folder: Path) -> Path | None:
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"--model {printable(name)}: the folder holds an adapter (adapter_config.json); merge it into the model, "
            "and save that"
        )
    for each in WEIGHTS:
        if (folder / each).is_file():
            return folder / each
        if (folder / each).exists():
            raise ModelError(f"--model {printable(name)}: {each} is no regular file; put the weights there")
    pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"--model {printable(name)}: its weights are no safetensors ({printable(pickled[0])}), and loading others "
            "could run code; load them yourself, and model.save_pretrained(FOLDER)"
        )
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        raise ModelError(
            f"--model {printable(name)}: no {WEIGHTS[1]} among {printable(', '.join(others[:3]))}; rename the weights"
        )
    return None
