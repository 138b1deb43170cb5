"""The static tier: the same numbers every time, and every way to break merging shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tomebench.gate import static_tier as static
from tomebench.gate.compare import Limits, compare, exit_code
from tomebench.gate.records import Snapshot
from tomebench.reduction import vit
from tomebench.reduction.method import Context
from tomebench.reduction.methods.tome import Tome
from tomebench.reduction.plan import MergePlan
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config


def config(**settings: object) -> SweepConfig:
    return load_config([], {"model": "test_vit", "r": "0,4,8", "device": "cpu", **settings})


@pytest.fixture(scope="module")
def intact() -> Snapshot:
    return static.static_snapshot(config())


def verdicts(old: Snapshot, new: Snapshot) -> dict[str, str]:
    return {finding.cell: finding.verdict for finding in compare(old, new, ["static"], Limits())}


def test_twice_the_same(intact: Snapshot) -> None:
    again = static.static_snapshot(config())
    assert again == intact
    assert verdicts(intact, again) == {"r=0": "same", "r=4": "same", "r=8": "same"}


def test_it_does_not_depend_on_how_a_run_was_measured(intact: Snapshot) -> None:
    other = static.static_snapshot(config(dtype="bf16", batch_size=3, budget="quick", compile=True, threads=1))
    assert verdicts(intact, other) == {"r=0": "same", "r=4": "same", "r=8": "same"}


def test_an_attention_that_a_cpu_lacks_is_replaced(intact: Snapshot) -> None:
    assert verdicts(intact, static.static_snapshot(config(attention="cudnn"))) == {
        "r=0": "same", "r=4": "same", "r=8": "same",
    }  # fmt: skip


real_merge = vit.merge


def drops(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    _, merged_size = real_merge(plan, x, size)
    return x.gather(1, plan.kept.unsqueeze(-1).expand(-1, -1, x.shape[2])), merged_size


def forgets_sizes(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    merged, merged_size = real_merge(plan, x, size)
    return merged, torch.ones_like(merged_size)


def plain_mean(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    merged, _ = real_merge(plan, x, None)  # as if every token stood for itself
    return merged, real_merge(plan, x, size)[1]


@pytest.mark.parametrize("broken", [drops, forgets_sizes, plain_mean])
def test_a_broken_merge_shows(
    intact: Snapshot, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    monkeypatch.setattr(vit, "merge", broken)
    now = static.static_snapshot(config())
    assert all(cell.static_problem is None for cell in now.cells)  # it runs, but not as it should
    assert verdicts(intact, now) == {"r=0": "same", "r=4": "worse", "r=8": "worse"}


def divides_by_zero(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    merged, merged_size = real_merge(plan, x, size)
    return merged / 0, merged_size


def wrong_shape(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    merged, merged_size = real_merge(plan, x, size)
    return merged, merged_size[:, 1:]


@pytest.mark.parametrize(("broken", "says"), [(divides_by_zero, "NaN or infinite"), (wrong_shape, "RuntimeError")])
def test_a_merge_that_does_not_even_run_is_worse_and_the_other_cells_are_judged(
    intact: Snapshot, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., tuple[Tensor, Tensor]], says: str
) -> None:
    monkeypatch.setattr(vit, "merge", broken)
    found = compare(intact, static.static_snapshot(config()), ["static"], Limits())
    assert [f.verdict for f in found] == ["same", "worse", "worse"]
    assert says in found[1].detail
    assert exit_code(found) == 3


class Unprotected(Tome):
    """Merging that takes the class token for a patch."""

    def choose(self, ctx: Context) -> MergePlan:
        return super().choose(dataclasses.replace(ctx, prefix=0))


def test_an_unprotected_class_token_shows(intact: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    real = static.reduced_vit

    def unprotected(backbone: object, *arguments: object) -> vit.ReducedViT:
        model = real(backbone, *arguments)  # type: ignore[arg-type]
        model.method = Unprotected()
        return model

    monkeypatch.setattr(static, "reduced_vit", unprotected)
    now = static.static_snapshot(config())
    assert all(cell.static_problem is None for cell in now.cells)
    found = compare(intact, now, ["static"], Limits())
    assert {f.cell: f.verdict for f in found} == {"r=0": "same", "r=4": "worse", "r=8": "worse"}
    assert exit_code(found) == 3


@pytest.mark.parametrize("by", [1, -1])
def test_an_r_that_is_off_by_one_shows(intact: Snapshot, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    from tomebench.sweeps import cells

    real = cells._reduced

    def off(backbone, settings, method, r_asked, *more):  # type: ignore[no-untyped-def]
        return real(backbone, settings, method, [r + by if r else 0 for r in r_asked], *more)

    monkeypatch.setattr(cells, "_reduced", off)
    now = static.static_snapshot(config())
    assert all(cell.static_problem is None for cell in now.cells)
    found = compare(intact, now, ["static"], Limits())
    assert {f.cell: f.verdict for f in found} == {"r=0": "same", "r=4": "worse", "r=8": "worse"}
    assert "tokens" in found[1].detail


def test_other_weights_are_not_comparable(intact: Snapshot) -> None:
    assert set(verdicts(intact, static.static_snapshot(config(seed=1))).values()) == {"incomparable"}
