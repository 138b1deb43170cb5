"""Rotary ViTs: r = 0 is the model itself, and merged tokens are rotated as one of theirs or by the mean of theirs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from backbones import rotary_reference
from backbones.zoo import images_for, prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.eva import Eva
from torch import Tensor

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.errors import SpecError, UnsupportedModelError
from tomebench.reduction.plan import MergePlan
from tomebench.reduction.positions import Rotations

SMALL: dict[str, Any] = {
    "img_size": (20, 16), "patch_size": 4, "embed_dim": 16, "num_heads": 2, "depth": 3, "num_classes": 5,
    "use_abs_pos_emb": False, "use_rot_pos_emb": True,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "index grid": {"global_pool": "token"},
    "index grid beside positions": {"use_abs_pos_emb": True, "init_values": 0.1},
    "grid of [-1, 1]": {
        "rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 2, "no_embed_class": True,
        "init_values": 0.1, "dynamic_img_size": True,
    },
    "by block and head": {"rope_type": "mixed", "init_values": 0.1, "attn_only_layer_scale": True},
    "sections": {"rope_type": "mrope", "rope_mrope_section": (0, 2, 2), "global_pool": "token"},
    "no class token, separate bias": {"class_token": False, "qkv_bias_separate": True},
    "split projections": {"qkv_fused": False, "qk_norm": True},
    "grouped keys": {"attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1, "qk_norm": True},
}  # fmt: skip
"""Arguments of models with every kind of rotation, and of projection."""


def build(kind: str, **more: Any) -> Eva:
    """A small model of one kind in float64, all its parameters random."""
    arguments = {**SMALL, **KINDS[kind], **more}
    separate = arguments.pop("qkv_bias_separate", False)
    model = Eva(**arguments)
    for block in model.blocks if separate else ():
        block.attn.qkv_bias_separate = True  # the model has no argument for it
    return prepare(model.double(), seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_model_written_in_loops(kind: str) -> None:
    model = build(kind)
    images = images_for(model)
    for rope, metric, r in (("keep", "k", [3, 0, 5]), ("mean", "k", [3, 2, 2]), ("keep", "k_rot", [4, 4, 0])):
        if model.rope_mixed and (rope, metric) != ("keep", "k"):
            continue
        merged = apply(model, r, rope=rope, metric=metric)
        with torch.no_grad():
            got = merged(images)
        for image, row in zip(images, got, strict=True):
            expected = rotary_reference.logits(model, image, r, rope=rope, metric=metric)
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-10)
        with torch.no_grad():
            assert (got - model(images)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_written_in_loops_is_the_model_at_r_0(kind: str) -> None:
    model = build(kind)
    (image,) = images_for(model, batch=1)
    with torch.no_grad():
        expected = model(image[None])[0]
    got = rotary_reference.logits(model, image, [0] * 3, rope="keep", metric="k")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("metric", ["k", "k_rot"])
@pytest.mark.parametrize("kind", ["index grid", "grid of [-1, 1]", "sections"])
def test_the_choices_of_rotation_and_keys_change_the_logits(kind: str, metric: str) -> None:
    model = build(kind)
    images = images_for(model)
    with torch.no_grad():
        keep, mean = (apply(model, 4, rope=rope, metric=metric)(images) for rope in ("keep", "mean"))
        other = apply(model, 4, metric="k" if metric == "k_rot" else "k_rot")(images)
    assert (keep - mean).abs().max() > 1e-3
    assert (keep - other).abs().max() > 1e-3


def at_one_place(model: Eva) -> Eva:
    """The model with the rotation of its first patch for all patches."""
    table = model.rope.get_embed

    def same(*args: Any, **kwargs: Any) -> Tensor:
        found = table(*args, **kwargs)
        return found[..., :1, :].expand_as(found)

    model.rope.get_embed = same
    return model


@pytest.mark.parametrize("rope", ["keep", "mean"])
@pytest.mark.parametrize("kind", ["index grid", "grid of [-1, 1]", "grouped keys"])
def test_equal_tokens_at_one_place_merge_without_loss(kind: str, rope: str) -> None:
    model = at_one_place(build(kind))
    images = images_for(model)
    images[:, :, 4:8, 4:8] = images[:, :, :4, :4]  # patches of A and of B
    images[:, :, 8:12, :4] = images[:, :, :4, 4:8]
    with torch.no_grad():
        expected, got, other = (
            model(images),
            apply(model, [2, 0, 0], rope=rope)(images),
            apply(model, [4, 0, 0])(images),
        )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert (other - expected).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["index grid", "sections"])
def test_both_rotations_of_a_group_at_one_place_are_the_same(kind: str) -> None:
    model = at_one_place(build(kind))
    images = images_for(model)
    with torch.no_grad():
        keep, mean = (apply(model, 4, rope=rope)(images) for rope in ("keep", "mean"))
    torch.testing.assert_close(keep, mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_do_not_see_each_other(kind: str) -> None:
    model = build(kind)
    images = images_for(model, batch=4)
    order = torch.tensor([2, 0, 3, 1])
    merged = apply(model, 4)
    with torch.no_grad():
        torch.testing.assert_close(merged(images)[order], merged(images[order]), rtol=0, atol=1e-12)


def test_merged_tokens_are_the_means_of_their_sources() -> None:
    """After block 0 of the model, by the map of where each embedded token went."""
    model = build("grid of [-1, 1]", depth=1)
    images = images_for(model)
    backbone = adapt(model)
    merged = apply(model, 6)
    with torch.no_grad():
        source = merged.source_map(images)
        tokens = backbone.embed(images)
        x, _ = backbone.attention(0, tokens)
        plain = torch.zeros(2, x.shape[1] - 6, x.shape[2], dtype=x.dtype)
        plain.scatter_reduce_(1, source.unsqueeze(-1).expand_as(x), x, "mean", include_self=False)
        expected = model.norm(backbone.mlp(0, plain))
        torch.testing.assert_close(merged.forward_features(images), expected, rtol=0, atol=1e-12)


ROTATIONS = st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(2, 6), st.integers(0, 2**16))


@given(ROTATIONS)
def test_rotations_follow_two_merges(shape: tuple[int, int, int, int]) -> None:
    batch, prefix, patches, seed = shape
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(patches, 8, generator=generator, dtype=torch.float64)
    by_head = torch.randn(2, 3, patches, 8, generator=generator, dtype=torch.float64)
    places = torch.arange(patches).expand(batch, -1)
    size = None
    kept, means = Rotations(table, prefix), Rotations(table, prefix)
    heads = Rotations(by_head, prefix)
    group = [[[p] for p in range(patches)] for _ in range(batch)]
    for left in (patches, patches - 1):
        order = torch.stack([torch.randperm(left, generator=generator) for _ in range(batch)])
        plan = MergePlan.moving(order[:, :1], order[:, 1:2], left + prefix, prefix)
        kept, heads = kept.after(plan, size, "keep"), heads.after(plan, size, "keep")
        means = means.after(plan, size, "mean")
        places = places.gather(1, plan.kept[:, prefix:] - prefix)
        for image in range(batch):
            moved, onto = order[image, :2].tolist()
            group[image][onto] = group[image][onto] + group[image][moved]
            del group[image][moved]
        sizes = [[1.0] * prefix + [float(len(each)) for each in groups] for groups in group]
        size = torch.tensor(sizes)
        if left == 2:
            break
    assert torch.equal(kept.at(0)[:, 0], table[places])
    for layer in range(2):
        assert torch.equal(heads.at(layer), by_head[layer][:, places].transpose(0, 1))
    expected = torch.stack([torch.stack([table[each].mean(dim=0) for each in groups]) for groups in group])
    torch.testing.assert_close(means.at(0)[:, 0], expected, rtol=0, atol=1e-12)


EVAS = st.fixed_dictionaries(
    {
        "global_pool": st.sampled_from(["token", "avg", "avgmax", "max", "map", ""]),
        "class_token": st.booleans(),
        "num_reg_tokens": st.integers(0, 2),
        "no_embed_class": st.booleans(),
        "use_abs_pos_emb": st.booleans(),
        "rope_type": st.sampled_from([None, "cat", "mixed", "dinov3", "mrope"]),
        "rope_rotate_half": st.booleans(),
        "rope_grid_indexing": st.sampled_from(["ij", "xy"]),
        "attn_type": st.sampled_from(["eva", "rope"]),
        "qkv_bias": st.booleans(),
        "qkv_fused": st.booleans(),
        "qkv_bias_separate": st.booleans(),
        "qk_norm": st.booleans(),
        "swiglu_mlp": st.booleans(),
        "swiglu_align_to": st.sampled_from([0, 8]),
        "scale_mlp": st.booleans(),
        "scale_attn_inner": st.booleans(),
        "init_values": st.sampled_from([None, 0.1]),
        "attn_only_layer_scale": st.booleans(),
        "use_post_norm": st.booleans(),
        "use_pre_transformer_norm": st.booleans(),
        "use_post_transformer_norm": st.sampled_from([None, True, False]),
        "use_fc_norm": st.sampled_from([None, True, False]),
        "dynamic_img_size": st.booleans(),
        "kv_heads": st.sampled_from([None, 1]),
        "fused": st.booleans(),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
    }
)


def build_eva(options: dict[str, Any]) -> Eva:
    """A small Eva with these options, a few of them adjusted where they contradict each other."""
    options = dict(options)
    fused, dtype, kv_heads = options.pop("fused"), options.pop("dtype"), options.pop("kv_heads")
    separate = options.pop("qkv_bias_separate")
    if options["global_pool"] == "token":
        options["class_token"] = True
    if options["rope_type"] is None:
        options |= {"use_rot_pos_emb": False, "rope_type": "cat"}
    if options["rope_type"] == "mixed":
        options["rope_rotate_half"] = False
    if options["rope_type"] == "mrope":
        options |= {"rope_mrope_section": (0, 2, 2), "rope_grid_indexing": "ij"}
    if options["use_post_norm"]:
        options |= {"qk_norm": False, "attn_only_layer_scale": False}
    elif options["attn_type"] == "rope" and not options["qkv_fused"] and options["rope_type"] != "mixed":
        options["num_kv_heads"] = kv_heads
    model = Eva(**{**SMALL, "depth": 2, **options})
    for block in model.blocks:
        if options["attn_type"] == "eva":
            block.attn.qkv_bias_separate = separate  # the model has no argument for it
    return prepare(model, fused=fused).to(dtype)


@settings(max_examples=120)
@given(EVAS)
def test_r_0_is_the_model_itself_for_any_combination(options: dict[str, Any]) -> None:
    model = build_eva(options)
    images = images_for(model)
    with torch.no_grad():
        expected, got = model(images), apply(model, 0)(images)
        merged = apply(model, 3)(images)
    assert expected.isfinite().all()
    assert expected.std() > 1e-3
    assert torch.equal(got, expected)
    if options["global_pool"]:
        assert not torch.equal(merged, expected)


REGISTERED = [
    *(
        "eva_giant_patch14_224",
        "eva02_tiny_patch14_224",
        "eva02_base_patch16_clip_224",
        "eva02_enormous_patch14_clip_224",
    ),
    *("vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"),
    *("vit_small_patch16_rope_224", "vit_small_patch16_rope_mixed_224", "vit_small_patch16_rope_mixed_ape_224"),
    *("vit_mediumd_patch16_rope_reg1_gap_256", "vit_betwixt_patch16_rope_reg4_gap_256"),
    *("vit_pe_core_tiny_patch16_384", "vit_pe_spatial_tiny_patch16_512"),
]


@pytest.mark.parametrize("name", REGISTERED)
def test_registered_models_keep_their_bits_at_r_0(name: str) -> None:
    size = 112 if "patch14" in name else 128
    model = timm.create_model(name, depth=2, embed_dim=96, num_heads=2, num_classes=5, img_size=size)
    for dtype in (torch.float32, torch.bfloat16):
        prepare(model.to(dtype))
        images = images_for(model)
        with torch.no_grad():
            expected, got, merged = model(images), apply(model, 0)(images), apply(model, 8)(images)
        assert expected.std() > 1e-3
        assert torch.equal(got, expected)
        assert (merged - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "rope"), [("index grid", "keep"), ("grid of [-1, 1]", "mean"), ("by block and head", "keep")]
)
def test_compiles_to_one_graph(kind: str, rope: Any) -> None:
    model = build(kind).float()
    images = images_for(model)
    merged = apply(model, 4, rope=rope)
    compiled = torch.compile(merged, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(images), merged(images))


def test_tokens_of_dinov3() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_dinov3")
    merged = apply(model, 8)
    assert (merged.backbone.tokens, merged.backbone.prefix) == (261, 5)
    assert merged.token_counts[-1] == 165
    assert merged.backbone.rotary == "shared"


@pytest.mark.parametrize(
    ("kind", "how", "says"),
    [
        ("by block and head", {"rope": "mean"}, "rope mean: this model has a rotation for every block and head"),
        ("by block and head", {"metric": "k_rot"}, "every head of this model rotates by angles of its own"),
        ("index grid", {"use_rot_pos_emb": False, "rope": "mean"}, "rope mean: this model does not rotate its keys"),
        ("index grid", {"use_rot_pos_emb": False, "metric": "k_rot"}, "metric k_rot: this model does not rotate"),
        ("index grid", {"rope": "means"}, "rope is 'means'; use keep, mean"),
    ],
)
def test_options_for_other_rotations_are_refused(kind: str, how: dict[str, Any], says: str) -> None:
    how = dict(how)
    model = build(kind, use_rot_pos_emb=how.pop("use_rot_pos_emb", True))
    with pytest.raises(SpecError, match=says):
        apply(model, 2, **how)


def test_keys_of_heads_that_rotate_apart_compare_side_by_side() -> None:
    model = build("by block and head")
    images = images_for(model)
    with torch.no_grad():
        concat, before = (apply(model, 4, metric=metric, heads="concat")(images) for metric in ("k_rot", "k"))
    assert (concat - before).abs().max() > 1e-3


class OtherRope(torch.nn.Module):
    """Positions that nobody knows."""


def test_what_is_not_known_is_refused() -> None:
    model = build("index grid")
    model.rope = OtherRope()
    with pytest.raises(UnsupportedModelError, match="OtherRope in 'rope' of Eva"):
        apply(model, 2)
    model = build("index grid", patch_drop_rate=0.5)
    with pytest.raises(UnsupportedModelError, match="Eva has 'patch_drop'"):
        apply(model, 2)
    model = build("index grid")
    model.blocks[1].attn.qkv.register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModelError, match="has a forward hook"):
        apply(model, 2)
