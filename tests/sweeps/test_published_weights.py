"""A name stands for what its repository holds today: a table has one state of it, and says so."""

from __future__ import annotations

import pytest
from hub_cache import NAME, write_hub_cache
from PIL import Image
from safetensors.torch import save_file

from tomebench.errors import InputError
from tomebench.models.create import build_model
from tomebench.report.conditions import conditions
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.run import run_sweep


def test_another_state_of_a_repository_goes_into_no_table_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    state = dict(build_model("test_vit", num_classes=3, seed=3).model.state_dict())
    snapshot = write_hub_cache(tmp_path / "cache", state, ["cat", "dog", "newt"])
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        Image.new("RGB", (160, 160), (number * 200, 90, 9)).save(tmp_path / "pictures" / f"{number}.png")

    def sweep(r):
        settings = {
            "model": NAME, "data": str(tmp_path / "pictures"), "labels": False, "offline": True, "device": "cpu",
            "batch_size": 2, "budget": "none", "r": r,
        }  # fmt: skip
        *_, finished = run_sweep(load_config([], settings), tmp_path / "run", should_stop=lambda: False)
        assert isinstance(finished, Finished)
        return finished.rows

    rows = sweep("0")
    assert rows[0].weights.endswith(" (pretrained)")
    assert f"weights {rows[0].weights[:19]}… (pretrained)" in conditions(rows)[0]
    assert [row.weights for row in sweep("0,4")] == [rows[0].weights] * 2
    save_file({**state, "head.bias": state["head.bias"] + 1}, snapshot / "model.safetensors")
    with pytest.raises(InputError, match=r"measured with another weights \(weights [0-9a-f]{16} -> [0-9a-f]{16}\)"):
        sweep("0,4,8")
