"""The demo models: their size, their packaged weights, and that training is repeatable."""

import dataclasses

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tomebench.backbones.apply import apply
from tomebench.datasets.digits.data import split_indices
from tomebench.datasets.digits.render import EVALUATION_CLUTTER
from tomebench.models.digits_vit import NAME, ROTARY, create_model, train, weights_of
from tomebench.models.digits_vit.initialise import initialise

MODELS = (NAME, ROTARY)


def same_bits(one, other):
    """True if two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(name):
    model = create_model(name).eval()
    model.load_state_dict(load_file(weights_of(name)))
    return model


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(before)


def test_same_bits_sees_one_changed_value():
    state = {"a": torch.zeros(3), "b": torch.ones(2)}
    changed = {**state, "a": torch.tensor([0.0, 0.0, 1e-9])}
    assert same_bits(state, dict(state))
    assert not same_bits(state, changed)
    assert not same_bits(state, {"a": state["a"]})


@pytest.mark.parametrize("name", MODELS)
def test_the_architecture_is_plain_and_small(name):
    model = create_model(name)
    kinds = {
        NAME: (timm.models.VisionTransformer, timm.models.vision_transformer.Block),
        ROTARY: (timm.models.Eva, timm.models.eva.EvaBlock),
    }
    assert (type(model), *{type(block) for block in model.blocks}) == kinds[name]
    assert (model.pos_embed is None) == (name == ROTARY)
    assert model.patch_embed.num_patches + model.num_prefix_tokens == 197
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert weights_of(name).stat().st_size < 2 * 2**20


def test_preprocessing_comes_from_the_model():
    config = timm.data.resolve_model_data_config(create_model())
    assert config["input_size"] == (3, 56, 56)
    assert (config["crop_pct"], config["interpolation"]) == (1.0, "bicubic")
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)


def test_arguments_reach_timm():
    assert len(create_model(depth=2).blocks) == 2
    assert create_model(num_classes=3).pretrained_cfg["num_classes"] == 10  # the config is the packaged weights'


@pytest.mark.parametrize("name", MODELS)
def test_packaged_weights_say_how_they_were_made(name):
    with safe_open(weights_of(name), "pt") as file:
        metadata = file.metadata()
        assert {file.get_tensor(tensor).dtype for tensor in file.keys()} == {torch.float32}  # noqa: SIM118
    assert metadata["epochs"] == str(train.Recipe.epochs)
    assert metadata["seed"] == str(train.Recipe.seed)
    assert metadata["torch"]
    assert metadata["timm"]


@pytest.mark.parametrize("name", MODELS)
def test_held_out_accuracy(name):
    drawn = train.draw("test", 0, EVALUATION_CLUTTER)
    correct = train.count_correct(trained(name), drawn)
    with safe_open(weights_of(name), "pt") as file:
        recorded, total = map(int, file.metadata()["held_out_correct"].split(" of "))
    assert total == len(drawn.labels) == len(split_indices("test"))
    assert correct >= 0.95 * total
    assert abs(correct - recorded) <= 1  # another machine may round another way


def test_attention_starts_at_the_neighbours():
    model = create_model().eval()
    initialise(model)
    images = torch.zeros(1, 3, 56, 56)
    x = model.patch_embed(images)
    x = model._pos_embed(x)
    side = model.patch_embed.grid_size[0]
    for block, (first, second) in zip(model.blocks[:2], [(-side, side), (-1, 1)], strict=True):
        qkv = block.attn.qkv(block.norm1(x)).reshape(197, 3, 2, 32).permute(1, 2, 0, 3)
        scores = (qkv[0] @ qkv[1].transpose(1, 2))[:, 1:, 1:]
        for patch in (side + 1, 7 * side + 5, 12 * side + 12):  # inside, away from the edges
            assert scores[:, patch].argmax(dim=1).tolist() == [patch + first, patch + second]


def test_attention_of_the_rotary_model_starts_at_the_neighbours():
    model = create_model(ROTARY).eval()
    initialise(model)
    merged = apply(model, 0)
    tokens = merged.embed(torch.zeros(1, 3, 56, 56))
    for layer, (first, second) in enumerate([(-14, 14), (-1, 1)]):
        x, heads = merged.attend(layer, tokens)
        scores = (heads.q @ heads.k.transpose(2, 3))[0, :, 1:, 1:]
        for patch in (14 + 1, 7 * 14 + 5, 12 * 14 + 12):
            assert scores[:, patch].argmax(dim=1).tolist() == [patch + first, patch + second]
        tokens = tokens._replace(x=merged.mlp(layer, x))


def test_windows_hold_the_digit():
    drawn = train.draw("train", 5, only=range(0, 1198, 6))
    windows = train._windows(drawn.tokens)
    assert windows.shape == (200, 64)
    assert (windows.sort(dim=1).values == windows).all()
    assert 0 <= windows.min() < windows.max() < 196
    on_digit = (drawn.tokens != 10).sum(dim=1)
    assert (
        (drawn.tokens.gather(1, windows) != 10).sum(dim=1) == on_digit
    ).float().mean() > 0.85  # the largest are wider


@pytest.mark.parametrize("name", MODELS)
def test_short_runs_are_bit_identical(threads, name):
    recipe = train.Recipe(max_steps=3, threads=1, model=name)
    one, other = train.train(recipe), train.train(recipe)
    assert same_bits(one.state_dict(), other.state_dict())
    another_seed = train.train(dataclasses.replace(recipe, seed=1))
    assert not same_bits(one.state_dict(), another_seed.state_dict())
    torch.manual_seed(recipe.seed)
    start = create_model(name)
    initialise(start)
    assert not same_bits(one.state_dict(), start.state_dict())
