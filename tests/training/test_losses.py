"""The masked pass and the losses of training: equal to references of Python loops, and to pruning itself."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from reduction.learned_files import random_predictors, write_predictors
from torch import Tensor
from torch.nn import functional as F

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.reduction.attention import attend
from tomebench.reduction.predictors import KEEP, Predictors
from tomebench.training import losses as module
from tomebench.training.losses import Losses, Masked, attention_weights, decide, losses, masked_pass


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_masking_gives_the_logits_of_pruning(pool: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Where the same patches are dropped, a class token sees the same, whether they are masked or gone."""
    torch.manual_seed(3)
    vit = timm.create_model("test_vit", num_classes=5, img_size=64, global_pool=pool).double().eval()
    made = random_predictors([2, 4], 64).double()
    r = iter((5, 4))

    def surest(log_probability: Tensor, noise: object, before: list[Tensor] = []) -> Tensor:  # noqa: B006
        score = log_probability[..., KEEP].clone()
        if before:
            score[before[-1] == 0] = -math.inf
        count = 16 - next(r) - (5 if before else 0)
        kept = torch.zeros_like(score).scatter(1, score.topk(count, dim=1).indices, 1.0)
        before.append(kept)
        return kept

    monkeypatch.setattr(module, "decide", surest)
    images = torch.randn(3, 3, 64, 64, generator=noise(), dtype=torch.float64)
    file = write_predictors(tmp_path_factory.mktemp("p") / "p.safetensors", made.float())
    reduced = apply(vit, [0, 5, 0, 4, 0, 0], method="dynamicvit", predictors=file)
    with torch.no_grad():
        run = masked_pass(adapt(vit), made.double(), images, noise())
        assert [kept.sum(dim=1).tolist() for kept in run.kept] == [[11.0] * 3, [7.0] * 3]
        torch.testing.assert_close(run.logits, reduced(images), rtol=0, atol=2e-3)  # dropped ones count a millionth
        torch.testing.assert_close(
            masked_pass(adapt(vit), Predictors((), 0), images, noise()).logits, vit(images), rtol=0, atol=1e-9
        )


def test_attention_by_hand() -> None:
    """A prefix token and three patches, the second dropped: nobody but itself attends to it."""
    found = attention_weights(torch.tensor([[1.0, 0.0, 1.0]]).double(), 1)
    e = 1e-6
    assert found.tolist() == [[[1, 1, e, 1], [1, 1, e, 1], [1, 1, 1, 1], [1, 1, e, 1]]]
    q, k, v = (torch.randn(1, 2, 4, 3, generator=noise(i), dtype=torch.float64) for i in range(3))
    out = attend(q, k, v, found, dropout=0.0, fused=True, route="matmul")
    for head in range(2):
        for query in range(4):
            scores = [
                math.exp(sum(a * b for a, b in zip(q[0, head, query].tolist(), key, strict=True)) / math.sqrt(3))
                * found[0, query, number].item()
                for number, key in enumerate(k[0, head].tolist())
            ]
            for c in range(3):
                expected = sum(s * v[0, head, j, c].item() for j, s in enumerate(scores)) / sum(scores)
                assert out[0, head, query, c].item() == pytest.approx(expected, abs=1e-9)


def test_decisions_are_drawn_with_their_probability_and_have_a_gradient() -> None:
    logits = torch.tensor([0.0, 1.2]).expand(1, 20_000, 2).clone().requires_grad_(True)
    kept = decide(logits.log_softmax(dim=-1), noise())
    assert {*kept.unique().round(decimals=6).tolist()} == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(1 / (1 + math.exp(-1.2)), abs=0.01)
    kept.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[..., KEEP] > 0).all()
    assert torch.equal(decide(logits, noise(1)), decide(logits, noise(1)))


def test_losses_equal_loops() -> None:
    kept = (torch.tensor([[1.0, 1, 0], [1, 0, 0]]).double(), torch.tensor([[1.0, 0, 0], [0, 0, 0]]).double())
    ours, theirs = (torch.randn(2, 4, generator=noise(i), dtype=torch.float64) for i in (1, 2))
    here, there = (torch.randn(2, 4, 5, generator=noise(i), dtype=torch.float64) for i in (3, 4))
    labels = torch.tensor([2, 0])
    found = losses(Masked(ours, here, kept), Masked(theirs, there, ()), labels, [0.6, 0.36])
    p, q = (F.softmax(each, dim=1).tolist() for each in (ours, theirs))
    assert found.classes.item() == pytest.approx(-(math.log(p[0][2]) + math.log(p[1][0])) / 2)
    apart = [q[i][c] * math.log(q[i][c] / p[i][c]) for i in range(2) for c in range(4)]
    assert found.teacher.item() == pytest.approx(sum(apart) / 2)
    only = [(here[0, 1, c] - there[0, 1, c]).item() ** 2 for c in range(5)]  # the first patch, after one prefix token
    assert found.tokens.item() == pytest.approx(sum(only) / 5)
    ratio = [(0.6 - 2 / 3) ** 2, (0.6 - 1 / 3) ** 2, (0.36 - 1 / 3) ** 2, 0.36**2]
    assert found.ratio.item() == pytest.approx(sum(ratio) / 4)
    parts = [each.item() for each in found]
    assert found.total.item() == pytest.approx(parts[0] + 0.5 * parts[1] + 0.5 * parts[2] + 2 * parts[3])
    assert isinstance(found, Losses)


def test_every_predictor_gets_a_gradient() -> None:
    torch.manual_seed(3)
    vit = timm.create_model("test_vit", num_classes=5, img_size=64).eval()
    made = random_predictors([2, 4], 64).requires_grad_(True)
    images = torch.randn(3, 3, 64, 64, generator=noise())
    run = masked_pass(adapt(vit), made, images, noise())
    F.cross_entropy(run.logits, torch.tensor([0, 1, 2])).backward()
    for weights in made.parameters():
        assert weights.grad is not None
        assert weights.grad.isfinite().all()
        assert weights.grad.abs().max() > 0
    stage = run.kept[1]
    assert (stage <= run.kept[0] + 1e-6).all(), "what one predictor drops stays dropped"
