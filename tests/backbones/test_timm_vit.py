"""The wrapper leaves the model alone, follows it into training and to other sizes, and says where patches went."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from backbones.zoo import NARROW, build, images_for, prepare
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tomebench.backbones.apply import apply
from tomebench.backbones.timm_vit import TimmViT
from tomebench.errors import SpecError
from tomebench.reduction.metric import head_mean
from tomebench.reduction.registry import get_method
from tomebench.reduction.vit import ReducedViT, SlicedViT


def small(**arguments: Any) -> VisionTransformer:
    options = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "num_heads": 2,
        "depth": 3,
        "num_classes": 5,
        **arguments,
    }
    return prepare(VisionTransformer(**options))


def snapshot(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Every attribute of every sub-module; tensors and containers by value."""
    return {
        name: {key: copy.deepcopy(value) if key != "_modules" else list(value) for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }


def assert_same_snapshot(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> None:
    """Same modules, same attributes, same values."""
    assert before.keys() == after.keys()
    for name, attributes in before.items():
        assert attributes.keys() == after[name].keys(), name
        for key, value in attributes.items():
            assert same(value, after[name][key]), f"{name}.{key}"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (bool, int, float, str, list, tuple, set, type(None))):
        return bool(one == other)
    return type(one) is type(other)  # copies of functions and other objects are not equal to the originals


def test_the_snapshot_notices_a_change() -> None:
    model = small()
    before = snapshot(model)
    for change in (
        lambda m: setattr(m.blocks[1], "_tome", 1),
        lambda m: m.blocks[0].attn.qkv.weight.data.add_(1),
        lambda m: setattr(m.blocks[2], "norm3", nn.Identity()),
        lambda m: m.train(),
    ):
        changed = copy.deepcopy(model)
        change(changed)
        with pytest.raises(AssertionError):
            assert_same_snapshot(before, snapshot(changed))
    assert_same_snapshot(before, snapshot(model))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_resnet26d_224"])
def test_wrapping_running_and_counting_leave_the_model_as_it_was(name: str, training: bool) -> None:
    model = build(name, {**NARROW, "img_size": 64}).train(training)
    images = images_for(model)
    before, forward = snapshot(model), type(model).forward
    merged = apply(model, 4)
    merged.backbone.macs()
    assert merged.token_counts
    assert_same_snapshot(before, snapshot(model))
    model.eval()
    with torch.no_grad():
        expected = model(images)
        merged(images)
        merged.source_map(images)
        assert torch.equal(model(images), expected)
    assert_same_snapshot(before, snapshot(model.train(training)))
    assert type(model).forward is forward


def test_the_weights_are_shared() -> None:
    model = small()
    merged = apply(model, 2)
    assert merged.model is model
    assert {id(p) for p in merged.parameters()} == {id(p) for p in model.parameters()}
    assert len(list(merged.parameters())) == len(list(model.parameters()))
    images = images_for(model)
    with torch.no_grad():
        before = merged(images)
        model.head.bias += 1
        torch.testing.assert_close(merged(images), before + 1)
    merged.double()
    assert model.head.weight.dtype == torch.float64
    assert merged(images.double()).dtype == torch.float64


def test_modes_follow() -> None:
    model = small()
    assert not apply(model, 2).training
    merged = apply(model.train(), 2)
    assert merged.training
    merged.eval()
    assert not any(module.training for module in model.modules())


def test_a_copy_has_weights_of_its_own() -> None:
    merged = apply(small(), 2)
    images = images_for(merged.model)
    twin = copy.deepcopy(merged)
    with torch.no_grad():
        expected = merged(images)
        twin.model.head.bias += 1
        assert torch.equal(merged(images), expected)
        torch.testing.assert_close(twin(images), expected + 1)
        twin.model.blocks[0].attn.qkv.weight.zero_()
        assert torch.equal(merged(images), expected)
        assert not torch.equal(twin(images), expected + 1)


DROPS = {"drop_rate": 0.2, "pos_drop_rate": 0.2, "proj_drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.3}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("drops", [{}, DROPS, {**DROPS, "patch_drop_rate": 0.25}], ids=["none", "all", "patches too"])
def test_r_0_trains_as_the_model_does(drops: dict[str, float], fused: bool) -> None:
    """Same random numbers, same output, same gradients, bit for bit."""
    model = prepare(small(**drops), fused=fused).train()
    images = images_for(model)
    results = []
    for module in (model, apply(model, 0)):
        model.zero_grad()
        torch.manual_seed(7)
        out = module(images)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_gradients_reach_every_parameter_through_merging(pool: str) -> None:
    model = small(global_pool=pool, **DROPS, patch_drop_rate=0.25).train()
    apply(model, 3)(images_for(model)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("where", DROPS)
@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_every_dropout_of_the_model_drops_in_merged_training_too(where: str, pool: str) -> None:
    model = small(global_pool=pool, depth=2, **{where: 0.5}).train()
    merged, images = apply(model, 3), images_for(model)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return merged(images)

    with torch.no_grad():
        assert torch.equal(run(1), run(1))
        assert any(not torch.equal(run(1), run(seed)) for seed in range(2, 8))
        merged.eval()
        assert torch.equal(run(1), run(2))


def test_distilled_training_returns_two_sets_of_logits() -> None:
    model = prepare(VisionTransformerDistilled(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=2)).train()
    model.set_distilled_training(True)
    one, two = apply(model, 3)(images_for(model))
    assert one.shape == two.shape == (2, 1000)


def test_another_image_size_at_run_time_has_its_own_cap() -> None:
    model = small(dynamic_img_size=True)
    merged = apply(model, 7)
    assert merged.token_counts == [10, 6, 4]
    with torch.no_grad():
        source = merged.source_map(torch.randn(1, 3, 48, 64))
        assert torch.equal(apply(model, 0)(torch.ones(1, 3, 48, 64)), model(torch.ones(1, 3, 48, 64)))
    assert source.shape == (1, 1 + 6 * 8)
    assert source.unique().numel() == 49 - 3 * 7


@pytest.mark.parametrize("img_size", [32, 30])
def test_padded_images_count_their_padded_patches(img_size: int) -> None:
    model = small(img_size=img_size, dynamic_img_size=True, dynamic_img_pad=True)
    merged = apply(model, 2)
    source = merged.source_map(torch.randn(1, 3, img_size, img_size))
    assert source.shape[1] == merged.backbone.tokens == 17
    assert source.unique().numel() == merged.token_counts[-1]


def test_the_input_size_can_be_changed_after_wrapping() -> None:
    model = small()
    merged = apply(model, 2)
    model.set_input_size(img_size=(48, 48))
    assert merged.token_counts == [35, 33, 31]
    assert merged(torch.randn(1, 3, 48, 48)).shape == (1, 5)


@pytest.mark.parametrize(("prefix", "arguments"), [(1, {}), (0, {"class_token": False}), (4, {"reg_tokens": 3})])
def test_the_source_map_partitions_the_patches(prefix: int, arguments: dict[str, Any]) -> None:
    model = small(global_pool="avg", **arguments)
    merged = apply(model, [5, 0, 2])
    source = merged.source_map(images_for(model, batch=3))
    tokens = 16 + prefix
    assert merged.backbone.prefix == prefix
    assert merged.token_counts == [tokens - 5, tokens - 5, tokens - 7]
    assert source.shape == (3, tokens)
    for row in source.tolist():
        assert set(row) == set(range(tokens - 7))
        assert row[:prefix] == list(range(prefix))
        assert all(owner >= prefix for owner in row[prefix:])
    assert torch.equal(apply(model, 0).source_map(images_for(model)), torch.arange(tokens).expand(2, -1))


def test_permuting_the_batch_permutes_the_logits() -> None:
    model = small().double()
    merged = apply(model, 3)
    images = images_for(model, batch=4)
    with torch.no_grad():
        whole, permuted = merged(images), merged(images[[2, 0, 3, 1]])
    torch.testing.assert_close(permuted, whole[[2, 0, 3, 1]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", [0, 3])
def test_a_batch_of_no_images_has_no_logits(r: int) -> None:
    model = small()
    images = images_for(model)[:0]
    assert model(images).shape == (0, 5)
    assert apply(model, r)(images).shape == (0, 5)


def test_compiling_needs_no_graph_break_and_changes_nothing() -> None:
    model = small(global_pool="avg", reg_tokens=2)
    merged, images = apply(model, 3), images_for(model)
    compiled = torch.compile(merged, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(images), merged(images))


def test_run_to_run_the_bits_are_the_same() -> None:
    model = small()
    merged, images = apply(model, 3), images_for(model)
    with torch.no_grad():
        assert torch.equal(merged(images), merged(images.clone()))


def test_the_adapter_names_what_it_found() -> None:
    model = build("deit_tiny_distilled_patch16_224", NARROW)
    backbone = TimmViT(model)
    assert (backbone.depth, backbone.prefix, backbone.tokens) == (2, 2, 198)
    assert backbone.head_reads_prefix_only
    where = {"dtype": torch.float32, "device": torch.device("cpu")}
    assert apply(model, [3, 0]).attention_kernels(2, **where) == ("sdpa-flash", "sdpa-flash+bias")
    assert apply(model, [3, 0], prop_attn=False).attention_kernels(2, **where) == ("sdpa-flash", "sdpa-flash")
    unfused = apply(prepare(model, fused=False), [0, 3])
    assert unfused.attention_kernels(2, **where) == ("unfused", "unfused")  # block 1 sees sizes of one


def logits_and_gradients(model: nn.Module, run: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits and the gradients of their squares with respect to every parameter and the images."""
    images = images.clone().requires_grad_(True)
    logits = run(images)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(logits.square().sum(), [images, *parameters], allow_unused=True)
    return [logits, *(torch.zeros(()) if g is None else g for g in found)]


@pytest.mark.parametrize("r", [[0, 0, 0], [3, 3, 3], [7, 2, 0]])
def test_the_prefix_alone_gives_the_same_logits_and_gradients(r: list[int]) -> None:
    model = small(class_token=True, global_pool="token").double()
    merged, short = apply(model, r), apply(model, r, prefix_only=True)
    assert short.token_counts == [*merged.token_counts[:-1], 1]
    images = images_for(model)
    full, cut = (logits_and_gradients(model, run, images) for run in (merged, short))
    for one, other in zip(full, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert (short.source_map(images) >= 1).sum() == 0


def test_the_prefix_alone_is_refused_where_the_head_reads_more() -> None:
    for pool in ("avg", "map"):
        with pytest.raises(SpecError, match="pools over the other tokens"):
            apply(small(global_pool=pool, class_token=False), 3, prefix_only=True)


def test_the_ceiling_has_the_tokens_of_the_method_and_no_sizes() -> None:
    model = small()
    merged, sliced = (kind(TimmViT(model), get_method("tome"), [4, 0, 3]) for kind in (ReducedViT, SlicedViT))
    assert sliced.token_counts == merged.token_counts == [13, 13, 10]
    seen = []
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
        sliced(images_for(model))
    assert seen == sliced.token_counts
    where = {"dtype": torch.float32, "device": torch.device("cpu")}
    assert set(sliced.attention_kernels(2, **where)) == {"sdpa-flash"}
    assert sliced.source_map(images_for(model))[0].tolist() == [*range(10), *[-1] * 7]


def test_a_ceiling_that_slices_nothing_is_the_model() -> None:
    model = small()
    images = images_for(model)
    with torch.no_grad():
        assert torch.equal(SlicedViT(TimmViT(model), get_method("tome"), [0, 0, 0])(images), model(images))


def test_the_list_of_r_has_one_value_for_each_block() -> None:
    with pytest.raises(ValueError, match="2 values of r for 3 blocks"):
        ReducedViT(TimmViT(small()), get_method("tome"), [1, 2])


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize("heads", [1, 2, 3, 12, 16, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_mean_over_heads_is_summed_in_fp32_and_rounded_once(dtype: torch.dtype, heads: int, width: int) -> None:
    qkv = torch.randn(2, 7, 3, heads, width, generator=torch.Generator().manual_seed(heads)).to(dtype)
    keys = qkv.permute(2, 0, 3, 1, 4)[1]  # a strided view, as attention has them
    before = keys.clone()
    mean = head_mean(keys)
    assert mean.dtype == dtype
    rounding = torch.finfo(dtype).eps / 2 if dtype.itemsize == 2 else 1e-6
    torch.testing.assert_close(mean.double(), keys.double().mean(dim=1), rtol=rounding, atol=1e-6)
    assert torch.equal(keys, before)
