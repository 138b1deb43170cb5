"""``hf/`` folders that are to be refused: by name, in one line, before anything of them is run or takes the memory."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from backbones.hf_models import build
from hf_folders import change, put_processor, save
from safetensors.torch import load_file, save_file

from tomebench.errors import ModelError, UnsupportedModelError
from tomebench.models.create import load_model


def bad(folder: Path, what: str) -> None:
    """Make the model in a folder one that is to be refused."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    outside = folder.parent / "outside"
    match what:
        case "code":
            change(config, auto_map={"AutoModel": "modeling.Own"})
        case "code of the processor":
            change(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "processing.Own"})
        case "pickle":
            weights.unlink()
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": 1}))
        case "link to weights":
            weights.rename(outside)
            weights.symlink_to(outside)
        case "link to settings":
            config.rename(outside)
            config.symlink_to(outside)
        case "broken link":
            weights.unlink()
            weights.symlink_to(folder.parent / "nowhere")
        case "shard outside":
            weights.unlink()
            index = {"metadata": {}, "weight_map": {"classifier.weight": "../outside"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        case "wide":
            change(config, hidden_size=10**9)
        case "deep":
            change(config, num_hidden_layers=10**6)
        case "large images":
            change(config, image_size=10**7)
        case "sizes that make too large a model":
            change(config, hidden_size=16_000, num_attention_heads=16, intermediate_size=200_000, num_hidden_layers=99)
        case "no patches":
            change(config, patch_size=0)
        case "shards that are pickles":
            weights.rename(folder / "part.bin")
            index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / "part.bin"), "part.bin")}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        case "no file but a folder":
            weights.unlink()
            weights.mkdir()
        case "one channel":
            change(config, num_channels=1)
        case "less than a patch":
            change(folder / "preprocessor_config.json", size={"height": 2, "width": 2})
        case "no numbers":
            config.write_text(config.read_text().replace("1e-12", "NaN"))
        case "weights elsewhere":
            change(config, transformers_weights="other.safetensors")
        case "a distributed checkpoint":
            (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(weights.read_bytes())
        case "sizes in a dictionary of its own":
            change(config, model_type="other", mine={"model_type": "vit", "num_hidden_layers": 600})
        case "a class that is no processor":
            put_processor(folder, {"image_processor_type": "ViTModel"})
        case "a size that is no number":
            change(config, hidden_size="48")
        case "quantised":
            change(config, quantization_config={"load_in_8bit": True})
        case "adapter":
            (folder / "adapter_config.json").write_text("{}")
        case "another class":
            change(config, architectures=["SwinForImageClassification"], model_type="swin")
        case "no class":
            change(config, architectures=None)
        case "not JSON":
            config.write_text("{")
        case "a list":
            config.write_text("[]")
        case "a pipe":
            config.unlink()
            os.mkfifo(config)
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "a tensor too few":
            state = load_file(weights)
            del state["classifier.bias"]
            save_file(state, weights, metadata={"format": "pt"})
        case "a tensor too many":
            save_file({**load_file(weights), "more": torch.zeros(1)}, weights, metadata={"format": "pt"})
        case "another shape":
            state = load_file(weights)
            state["classifier.weight"] = torch.zeros(9, 48)
            save_file(state, weights, metadata={"format": "pt"})
        case "weights of eight bits":
            state = {name: (100 * tensor).to(torch.int8) for name, tensor in load_file(weights).items()}
            save_file(state, weights, metadata={"format": "pt"})
        case "a deviation of zero":
            change(folder / "preprocessor_config.json", image_std=[0.2, 0.0, 0.2])
        case "a mean of infinity":
            change(folder / "preprocessor_config.json", image_mean=[0.2, 1e999, 0.2])
        case "a scale of zero":
            change(folder / "preprocessor_config.json", rescale_factor=0)
        case "no processor":
            (folder / "preprocessor_config.json").unlink()
        case "another processor":
            put_processor(folder, {"image_processor_type": "ConvNextImageProcessor"})
        case "a processor that does not resize":
            change(folder / "preprocessor_config.json", do_resize=False)
        case "a processor of huge images":
            change(folder / "preprocessor_config.json", size={"height": 10**6, "width": 10**6})
        case "a processor of odd settings":
            change(folder / "preprocessor_config.json", image_mean="0.5", resample="cubic")
        case "images of any size":
            put_processor(folder, {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32},
                                   "do_center_crop": False})  # fmt: skip
        case _:
            raise AssertionError(what)


REFUSED = {
    "code": r"config.json wants code of the repository to run \(auto_map\), which is refused",
    "code of the processor": r"preprocessor_config.json wants code of the repository to run \(auto_map\)",
    "pickle": r"its weights are no safetensors \(pytorch_model.bin\), and loading others could run code",
    "link to weights": "model.safetensors is a link to a file outside of the folder",
    "link to settings": "config.json is a link to a file outside of the folder",
    "broken link": "model.safetensors is a link to a file outside of the folder",
    "shard outside": "names '../outside', which is no file beside it",
    "wide": "hidden_size in config.json is 1000000000; a number from 1 to 16384 is expected",
    "deep": "num_hidden_layers in config.json is 1000000; a number from 1 to 512 is expected",
    "large images": "image_size in config.json is 10000000; a number from 1 to 8192 is expected",
    "sizes that make too large a model": "make a model of .* billion parameters, more than the 20 billion",
    "shards that are pickles": "names part.bin, which is no file of safetensors",
    "no file but a folder": "model.safetensors is no regular file",
    "one channel": "takes images of 1 channels; only RGB models can be measured",
    "less than a patch": "cannot take 2 pixels: that is less than one patch",
    "no numbers": r"config.json cannot be read \(it holds NaN\)",
    "a class that is no processor": "its image processor is a ViTModel; one of",
    "weights elsewhere": "its weights are not in model.safetensors or its shards",
    "a distributed checkpoint": "its weights are not in model.safetensors or its shards",
    "sizes in a dictionary of its own": "num_hidden_layers in config.json is 600; a number from 1 to 512",
    "no patches": "patch_size in config.json is 0; a number from 1 to 1024 is expected",
    "a size that is no number": "hidden_size in config.json is 48; a number from 1 to 16384 is expected",
    "quantised": "says that the weights are quantised",
    "adapter": r"holds an adapter \(adapter_config.json\)",
    "another class": "SwinForImageClassification of transformers, which token merging does not know",
    "no class": "does not name one class under architectures",
    "not JSON": "config.json cannot be read",
    "a list": "config.json holds no settings",
    "a pipe": "config.json cannot be read|config.json is not there",
    "cut weights": "its weights cannot be loaded",
    "a tensor too few": "its weights do not fit ViTForImageClassification: classifier.bias is missing",
    "a tensor too many": "its weights do not fit ViTForImageClassification: more is unknown to the model",
    "weights of eight bits": "its weights are numbers of type I8, as in a quantised model",
    "a deviation of zero": "its image processor divides by zero, or by no number",
    "a mean of infinity": "its image processor divides by|cannot be read",
    "a scale of zero": "its image processor divides by zero, or by no number",
    "another shape": "its weights (cannot be loaded|do not fit)",
    "no processor": "nothing says how its images are preprocessed",
    "another processor": "its image processor is a ConvNextImageProcessor; one of",
    "a processor that does not resize": "its image processor does not resize",
    "a processor of huge images": "makes images of 1000000 pixels; sides from 1 to 8192 are expected",
    "a processor of odd settings": "its image processor (cannot be (read|run)|has settings that)",
    "images of any size": "makes images of other sizes than one square",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(what: str, tmp_path: Path) -> None:
    folder = save(build("vit"), tmp_path / "mine")
    load_model(f"hf/{folder}", labelled=True, evaluated=True)
    bad(folder, what)
    with pytest.raises((ModelError, UnsupportedModelError), match=REFUSED[what]) as caught:
        load_model(f"hf/{folder}", labelled=True, evaluated=True)
    assert "\n" not in str(caught.value)
