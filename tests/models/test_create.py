"""Names and weights: aliases with tags, near names, seeded random weights, presets, and no network unasked."""

from __future__ import annotations

import pytest
import timm
import torch

from tomebench.errors import ModelError
from tomebench.models import published
from tomebench.models.aliases import ALIASES, MAE, PRESETS, TORCHVISION
from tomebench.models.create import build_model, load_model, resolve_model_name


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_stands_for_a_full_id_that_timm_has(alias):
    timm_id = resolve_model_name(alias)
    assert timm_id == ALIASES[alias].timm_id
    base, _, tag = timm_id.partition(".")
    assert tag
    assert timm.is_model(base)
    assert timm_id in timm.list_pretrained(f"{base}.*")


def test_vit_b_16_is_the_training_of_the_paper_not_timm_s_default():
    assert resolve_model_name("vit_b_16") == "vit_base_patch16_224.augreg_in21k_ft_in1k"
    assert resolve_model_name("vit_base_patch16_224") != resolve_model_name("vit_b_16")


def test_a_name_of_former_days_stands_for_its_present_one():
    assert resolve_model_name("deit3_small_patch16_224_in21ft1k") == "deit3_small_patch16_224.fb_in22k_ft_in1k"
    assert resolve_model_name("timm/vit_base_patch16_224_in21k") == "vit_base_patch16_224.augreg_in21k"


def test_a_name_without_a_tag_gets_the_one_that_timm_would_use():
    assert resolve_model_name("deit_tiny_patch16_224") == "deit_tiny_patch16_224.fb_in1k"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vit_b_61", "did you mean vit_b_16"),
        ("digit_vit", "did you mean digits_vit"),
        ("zzzzzz", "see: tomebench list models"),
        ("vit_base_patch16_224.nope", "has no tag 'nope'; it has augreg"),
    ],
)
def test_an_unknown_name_gets_a_hint(name, text):
    with pytest.raises(ModelError, match=text):
        resolve_model_name(name)


def test_random_weights_are_seeded_and_leave_the_callers_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (build_model("test_vit", seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["patch_embed.proj.weight"], other["patch_embed.proj.weight"])


def test_a_model_on_meta_has_shapes_and_no_storage():
    model = build_model("vit_l_16", meta=True).model
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not model.training


def test_an_impossible_image_size_is_refused():
    with pytest.raises(ModelError, match="cannot be built at 100 pixels"):
        build_model("resnet18", img_size=100)


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {*TORCHVISION} - {*MAE}))
def test_a_preset_brings_its_weights(preset):
    loaded = load_model(preset)
    assert loaded.timm_id == preset
    assert loaded.weights.startswith("sha256:")
    assert not torch.equal(loaded.model.head.weight, build_model(preset).model.head.weight)


def test_offline_refuses_weights_that_are_not_in_the_cache(monkeypatch):
    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *a, **k: None)
    real = timm.create_model

    def no_network(name, pretrained=False, **kwargs):
        return pytest.fail("asked the network") if pretrained else real(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(ModelError, match=r"model.safetensors of timm/vit_tiny\S+ is not in the local cache"):
        load_model(ALIASES["vit_ti_16"].timm_id, pretrained=True, offline=True)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    monkeypatch.setattr(published.constants, "HF_HUB_OFFLINE", False)  # the tests may run with it
    real = timm.create_model

    def no_network(name, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("cannot\nconnect")
        return real(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(
        ModelError, match=r"cannot be fetched \(cannot connect\); pass a file with --checkpoint"
    ) as error:
        load_model("test_vit", pretrained=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "size"), [("digits_vit", 2), ("vit_b_16", 7)])
def test_an_image_smaller_than_a_patch_is_refused(name, size):
    with pytest.raises(ModelError, match="less than one patch"):
        build_model(name, img_size=size, meta=True)
