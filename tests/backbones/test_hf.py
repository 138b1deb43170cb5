"""transformers' ViTs: r = 0 is the model itself; merged, they are what their own layers make of fewer tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from backbones.hf_models import MODELS, SIZE, build, output  # noqa: E402

from tomebench.backbones.adapt import HF_CLASSES, adapt  # noqa: E402
from tomebench.backbones.apply import apply as merging  # noqa: E402
from tomebench.backbones.hf_kinds import TRANSFORMERS  # noqa: E402
from tomebench.backbones.hf_vit import HFViT  # noqa: E402
from tomebench.errors import SpecError, UnsupportedModelError  # noqa: E402
from tomebench.measure.compilation import compiled  # noqa: E402
from tomebench.models.hf_model import HFModel  # noqa: E402

ENCODED = {"rotary": ("dinov3", "dinov3-gated"), "biased": ("beit", "beit-shared")}


def apply(model: nn.Module, r: Any, **more: Any) -> Any:
    """The reduced model as sweeps run it: images to logits, or to what is pooled."""
    return merging(HFModel(model), r, **more)


def images_for(dtype: torch.dtype = torch.float32, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_every_class_has_a_model_here() -> None:
    models = [type(MODELS[name]()) for name in MODELS]
    assert {*HF_CLASSES} == {each.__name__ for each in models}
    assert {*TRANSFORMERS} == {f"{each.__module__}.{each.__name__}" for each in models}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_r_0_has_the_bits_of_the_model_and_r_8_moves_its_output(name: str, dtype: torch.dtype) -> None:
    model, images = build(name).to(dtype), images_for(dtype)
    with torch.no_grad():
        expected = output(model, images)
        assert torch.equal(apply(model, 0)(images), expected)
        assert not torch.equal(apply(model, 8)(images), expected)


def of_one_place(model: nn.Module) -> nn.Module:
    """The model with nothing that tells places apart: no positions, no biases by them, no rotations."""
    with torch.no_grad():
        for name, each in [*model.named_parameters(), *model.named_buffers()]:
            if "position_embedding" in name or "relative_position" in name or "inv_freq" in name:
                each.zero_()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_equal_patches_merge_without_loss(name: str) -> None:
    """Attention and every kind of head count a merged token as often as it has patches."""
    model = of_one_place(build(name)).double()
    patches = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    images = torch.cat([patches[0].repeat(1, 8, 2), patches[1].repeat(1, 8, 6)], dim=2)[None]  # 16 of one, 48 of other
    with torch.no_grad():
        expected = output(model, images)
        merged = apply(model, [16, 8, 4])
        torch.testing.assert_close(merged(images), expected, rtol=0, atol=1e-9)
        assert (apply(model, [16, 8, 4], prop_attn=False)(images) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("name", [*ENCODED["rotary"], *ENCODED["biased"]])
def test_tokens_left_keep_their_places(name: str) -> None:
    """On the tokens left, with their rotations or biases, layers of transformers say the same."""
    model, images = build(name).double(), images_for(torch.float64)
    reduced = apply(model, [0, 9, 0], method="tome-drop")
    with torch.no_grad():
        source = reduced.source_map(images)
        features = reduced.forward_features(images)
        for image, places, got in zip(images, source, features, strict=True):
            kept = torch.cat([places.new_tensor([int((places == slot).nonzero()[0])]) for slot in range(len(got))])
            torch.testing.assert_close(got, by_its_layers(model, image[None], kept)[0], rtol=0, atol=1e-9)


def by_its_layers(whole: Any, images: Tensor, kept: Tensor) -> Tensor:
    """Features of a model whose tokens are cut to ``kept`` in the middle of its second layer."""
    tower = getattr(whole, "beit", whole)
    x, more, last = tower.embeddings(images), {}, {}
    if "rope_embeddings" in dict(tower.named_children()):
        prefix, (cos, sin) = adapt(whole).prefix, tower.rope_embeddings(images)
        rows = kept[prefix:] - prefix
        more, last = {"position_embeddings": (cos, sin)}, {"position_embeddings": (cos[rows], sin[rows])}
        layers, scales = tower.model.layer, ("layer_scale1", "norm1", "norm2", "layer_scale2")
    else:
        grid = (8, 8)
        shared = 0 if tower.shared_position_bias is None else tower.shared_position_bias(grid)
        layers, scales = tower.layers, ("lambda_1", "layernorm_before", "layernorm_after", "lambda_2")
    x = layer_of(layers[0], x, more) if more else layers[0](x, shared, resolution=(SIZE, SIZE))
    scale1, norm1, norm2, scale2 = (getattr(layers[1], each) for each in scales)
    arguments = more or {"attention_mask": shared + layers[1].relative_position_bias(grid)}
    branch = layers[1].attention(norm1(x), **arguments)[0]
    x = (x + (scale1(branch) if more else scale1 * branch))[:, kept]
    branch = layers[1].mlp(norm2(x))
    x = x + (scale2(branch) if more else scale2 * branch)
    if more:
        x = layer_of(layers[2], x, last)
    else:
        layer, bias = layers[2], shared + layers[2].relative_position_bias(grid)
        bias = bias[:, :, kept][:, :, :, kept]
        x = x + layer.lambda_1 * layer.attention(layer.layernorm_before(x), attention_mask=bias)[0]
        x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
    return (tower.norm if more else tower.layernorm)(x)


def layer_of(layer: nn.Module, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    found: Any = layer(x, **arguments)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_macs_are_those_of_a_flop_counter(name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    backbone = adapt(build(name))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        apply(backbone.model, 0)(images_for(batch=1))
    expected = counter.get_total_flops() / 2e9
    assert backbone.macs().gmacs(backbone.tokens, [backbone.tokens] * backbone.depth) == pytest.approx(
        expected, rel=1e-9
    )


def test_a_published_size() -> None:
    config = transformers.Dinov2Config(image_size=224)  # the base model
    with torch.device("meta"):
        backbone = adapt(transformers.Dinov2Model(config))
    assert (backbone.tokens, backbone.prefix, backbone.depth) == (257, 1, 12)
    assert apply(backbone.model, 8).token_counts[-1] == 257 - 12 * 8


@pytest.mark.parametrize("method", ["evit", "random-prune", "kmeans", "ats", "zero-tprune", "graph-cut"])
def test_methods_run_on_every_kind_of_layer(method: str) -> None:
    for name in ("dinov2-registers", "dinov3", "siglip-encoder", "clip", "beit"):
        reduced = apply(build(name), 6, method=method)
        with torch.no_grad():
            assert torch.isfinite(reduced(images_for())).all()
        assert reduced.token_counts[-1] == reduced.backbone.tokens - 18


@pytest.mark.parametrize("name", ["dinov3", "siglip-encoder"])
def test_one_graph_when_compiled(name: str) -> None:
    reduced, images = apply(build(name), 6), images_for()
    with torch.no_grad():
        torch.testing.assert_close(compiled(reduced)(images), reduced(images), rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_model() -> None:
    model, images = build("dinov2").train(), images_for()
    found = []
    for run in (lambda: output(model, images), lambda: apply(model, 0)(images)):
        model.zero_grad()
        run().square().sum().backward()
        found.append([each.grad.clone() for each in model.parameters() if each.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_unknown_is_named() -> None:
    model = build("vit")
    model.vit.layers[1].extra = nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="ViTLayer has 'extra'"):
        adapt(model)
    model = build("dinov2")
    model.dinov2.encoder.layer[0].attention.q_norm = nn.Identity()
    with pytest.raises(UnsupportedModelError, match="Dinov2Attention has 'q_norm'"):
        adapt(model)
    model = build("clip-encoder")
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModelError, match="CLIPVisionModel has a forward hook"):
        adapt(model)
    model = build("vit-encoder")
    model.set_attn_implementation("eager")
    with pytest.raises(
        UnsupportedModelError, match=r"attention eager \(load the model with attn_implementation='sdpa'\)"
    ):
        adapt(model)
    config = transformers.ViTMAEConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=1, intermediate_size=12)
    with pytest.raises(UnsupportedModelError, match="ViTMAEModel of transformers"):
        HFViT(transformers.ViTMAEModel(config))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_in_python_keep_their_form(name: str) -> None:
    model, images = build(name), images_for()
    with torch.no_grad():
        expected: Any = model(pixel_values=images, output_hidden_states=True)
        same = merging(model, 0)(pixel_values=images, output_hidden_states=True, unmerge=True)
        assert type(same) is type(expected)
        assert list(same.keys()) == list(expected.keys())
        for key in expected:
            for one, other in zip(as_tuple(same[key]), as_tuple(expected[key]), strict=True):
                assert torch.equal(one, other), key
        reduced = merging(model, 6)
        short, whole = (reduced(images, output_hidden_states=True, unmerge=full) for full in (False, True))
        assert [each.shape[1] for each in short.hidden_states] == [reduced.backbone.tokens, *reduced.token_counts]
        for key in expected:
            for one, other in zip(as_tuple(whole[key]), as_tuple(expected[key]), strict=True):
                assert one.shape == other.shape
        if "last_hidden_state" in expected:
            source = reduced.source_map(images)[..., None].expand_as(whole.last_hidden_state)
            assert torch.equal(whole.last_hidden_state, short.last_hidden_state.gather(1, source))
        assert isinstance(reduced(images, return_dict=False), tuple)
    with pytest.raises(SpecError, match="takes no output_attentions; leave it out"):
        reduced(images, output_attentions=True)


def test_outputs_are_those_that_the_config_asks_for() -> None:
    for kind in ("vit-encoder", "beit-shared"):
        model: Any = build(kind)
        model.config.output_hidden_states = True
        merged = merging(model, 6)
        with torch.no_grad():
            assert len(merged(images_for()).hidden_states) == len(model(images_for()).hidden_states)
            model.config.return_dict = False
            assert isinstance(merged(images_for()), tuple)


def test_a_model_without_pooler_gives_no_pooled_output() -> None:
    whole: Any = build("beit-shared")
    model = transformers.BeitModel._from_config(
        whole.config, attn_implementation="sdpa", add_pooling_layer=False
    ).eval()
    with torch.no_grad():
        expected, found = model(images_for()), merging(model, 0)(images_for())
    assert expected.pooler_output is None
    assert found.pooler_output is None
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)


def test_images_of_another_size_have_other_biases() -> None:
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        model = build("dinov3")
        assert torch.equal(apply(model, 0)(images), output(model, images))
        with pytest.raises(SpecError, match="images of another size"):
            apply(build("beit"), 0)(images)


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
