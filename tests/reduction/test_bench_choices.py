"""The script behind SPEED.md runs, and the forms that it compares compute the same thing."""

from __future__ import annotations

import pytest
import torch
from reduction import bench_choices as bench
from torch import Tensor

from tomebench.reduction.matching import bipartite_soft_matching


def assert_same(forms: dict[str, bench.Form], *, except_for: str = "") -> None:
    """Every form gives what the first one gives."""
    results: list[tuple[str, Tensor]] = []
    for name, form in forms.items():
        if name != except_for:
            out = form(0)
            results.append((name, out[0] if isinstance(out, tuple) else out))  # type: ignore[arg-type]
    for name, other in results[1:]:
        torch.testing.assert_close(other, results[0][1], rtol=1e-5, atol=1e-5, msg=f"{name} differs")


def test_the_comparison_notices_a_form_that_differs() -> None:
    with pytest.raises(AssertionError, match="other differs"):
        assert_same({"first": lambda i: torch.zeros(3), "other": lambda i: torch.ones(3)})


def test_all_forms_compute_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    batch, n, heads = 2, 41, 3
    x = torch.randn(batch, n, 64 * heads, generator=generator)
    weight = torch.randn(64 * heads, 64 * heads, generator=generator) / 14
    keys = (x @ weight.T).reshape(batch, n, heads, 64)
    qkv = torch.stack([torch.randn_like(keys), keys, torch.randn_like(keys)], dim=2).permute(2, 0, 3, 1, 4)
    size = torch.randint(1, 5, (batch, n), generator=generator).float()
    scores = torch.randn(batch, n // 2, n // 2, generator=generator)
    plan = bipartite_soft_matching(keys.mean(dim=2), bench.R, bench.PREFIX)
    assert_same(bench.mean_forms([qkv], [x], weight))
    assert_same(bench.select_forms([scores.amax(dim=-1)]))
    assert_same(bench.partner_forms([scores]))
    assert_same(bench.merge_forms(plan, [x], size), except_for="slice and copy (the floor)")
    assert_same({k: v for k, v in bench.attention_forms([qkv], size, x.device).items() if k != "no sizes"})


def test_the_script_prints_every_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--batch", "1", "--rounds", "1", "--tokens", "17,33"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "N=17 attention",
        *(f"N=33 {what}" for what in ("attention", "mean of keys", "selection", "partner", "merging")),
    ]
    assert all(float(text.split()[-2]) > 0 for line in lines[1:] for text in line.split(","))
