"""The automatic batch size of a sweep, on a machine whose room is counted in images."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tomebench.sweeps.batch_size import choose_batch_size
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.inputs import preprocessing_of


@pytest.mark.parametrize(
    ("settings", "batches"),
    [({}, 4), ({"cuda_graphs": True}, 4 + 3 + 1), ({"cuda_graphs": True, "ceiling": True}, 4 + 3 + 2 + 1)],
)
def test_an_automatic_batch_size_leaves_room_for_what_a_sweep_keeps(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool], batches: int
) -> None:
    """A machine that has room for so many images in all, and nothing else."""
    config = load_config([], {"model": "test_vit", "r": "0,4,8", "device": "cpu", "batch_size": "auto", **settings})
    model = timm.create_model("test_vit").eval()
    room, zeros = 8 * batches, torch.zeros

    def limited(*shape: Any, **how: Any) -> Tensor:
        if len(shape) == 5 and shape[0] * shape[1] > room:
            raise torch.OutOfMemoryError("out of memory")
        return zeros(*shape, **how)

    monkeypatch.setattr(torch, "zeros", limited)
    preprocessing = preprocessing_of(config, model)
    assert choose_batch_size(config, model, preprocessing, torch.device("cpu")) == 8
