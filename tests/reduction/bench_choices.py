"""The measurements behind tomebench/reduction/SPEED.md: each choice beside the alternatives that were dropped.

Run it as a script: python tests/reduction/bench_choices.py --dtype bf16 --model vit_b --batch 8
Every alternative runs in the same rounds, in random order, on inputs that no cache holds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.errors import DeviceError
from tomebench.measure.clock import clock_for
from tomebench.measure.device import DTYPES
from tomebench.measure.speed import Variant, calibrate, time_round
from tomebench.reduction.attention import attend, check_route
from tomebench.reduction.matching import bipartite_soft_matching, split_by_rank, split_by_sort
from tomebench.reduction.metric import head_mean
from tomebench.reduction.plan import MergePlan, first_rows, merge
from tomebench.runs.rounds import step_seconds
from tomebench.schema import Route

SHAPES = {"deit_ti": 3, "vit_s": 6, "vit_b": 12, "vit_l": 16}
"""Heads of 64 channels."""
PREFIX, R = 1, 8
Form = Callable[[int], object]


def mean_forms(qkv: Sequence[Tensor], x: Sequence[Tensor], weight: Tensor) -> dict[str, Form]:
    """Ways to the mean of the keys over heads. ``weight`` [C, C] makes keys from x; its head mean makes their mean."""
    heads = qkv[0].shape[2]
    keys = [t[1] for t in qkv]
    folded = weight.reshape(heads, -1, weight.shape[1])
    return {
        "head_mean (chosen)": lambda i: head_mean(keys[i]),
        "keys.mean in fp32": lambda i: keys[i].mean(dim=1, dtype=torch.float32),
        "copy then mean": lambda i: keys[i].transpose(1, 2).contiguous().mean(dim=2, dtype=torch.float32),
        "metric rows from x": lambda i: F.linear(x[i], folded.mean(dim=0)),
    }


def select_forms(best: Sequence[Tensor]) -> dict[str, Form]:
    """Ways to the r largest of N / 2 similarities."""
    return {
        "split_by_sort": lambda i: split_by_sort(best[i], R),
        "split_by_rank": lambda i: split_by_rank(best[i], R),
    }


def partner_forms(scores: Sequence[Tensor]) -> dict[str, Form]:
    """Ways to the best partner, the selection included: of every token, or of the r that move."""
    batch, halves, _ = scores[0].shape
    first = first_rows(batch, halves, scores[0].device)

    def of_those_that_move(i: int) -> Tensor:
        rows = (split_by_sort(scores[i].amax(dim=-1), R)[0] + first).view(-1)
        return scores[i].view(-1, scores[i].shape[2]).index_select(0, rows).argmax(dim=-1).view(batch, R)

    def of_all(i: int) -> Tensor:
        best, partner = scores[i].max(dim=-1)
        return partner.gather(1, split_by_sort(best, R)[0])

    return {"amax then argmax of r rows": of_those_that_move, "max with indices (chosen)": of_all}


def merge_forms(plan: MergePlan, x: Sequence[Tensor], size: Tensor) -> dict[str, Form]:
    """Ways to the weighted means."""
    dest = plan.dest.unsqueeze(-1)
    slots = torch.zeros(len(dest), plan.n_out, plan.n_in, dtype=x[0].dtype, device=x[0].device)
    weight = slots.scatter(1, plan.dest.unsqueeze(1), size.to(x[0].dtype).unsqueeze(1))

    def scattered(i: int) -> Tensor:
        scaled = x[i] * size.to(x[i].dtype).unsqueeze(-1)
        total = torch.zeros(len(scaled), plan.n_out, scaled.shape[2], dtype=scaled.dtype, device=scaled.device)
        total = total.scatter_reduce(1, dest.expand_as(scaled), scaled, "sum")
        return total / size.new_zeros(len(dest), plan.n_out).scatter_add(1, plan.dest, size).unsqueeze(-1)

    def by_product(i: int) -> Tensor:
        """As on other devices, which cannot add one after the other."""
        batch, moves = plan.moved.shape
        tokens, sizes = x[i].view(-1, x[i].shape[2]), size.view(-1)
        moved = sizes.index_select(0, plan.moved_rows)
        total = sizes.index_select(0, plan.kept_rows).index_add_(0, plan.into_rows, moved)
        out = tokens.index_select(0, plan.kept_rows)
        target = out.index_select(0, plan.into_rows).float()
        share = (moved / total.index_select(0, plan.into_rows)).unsqueeze(-1)
        pull = (tokens.index_select(0, plan.moved_rows) - target).mul_(share)
        into = plan.into_rows.view(batch, moves)
        alike = (into.unsqueeze(1) == into.unsqueeze(2)).float()
        sums = torch.baddbmm(target.view(batch, moves, -1), alike, pull.view(batch, moves, -1))
        first = (alike.argmax(dim=2) + first_rows(batch, moves, sums.device)).view(-1)
        sums = sums.to(out.dtype).view(-1, out.shape[1]).index_select(0, first)
        return out.index_copy_(0, plan.into_rows, sums).view(batch, plan.n_out, -1)

    return {
        "merge (chosen)": lambda i: merge(plan, x[i], size),
        "merge with a small product": by_product,
        "scatter_reduce": scattered,
        "one-hot product": lambda i: (weight @ x[i]) / weight.sum(dim=2, keepdim=True),
        "slice and copy (the floor)": lambda i: x[i][:, : plan.n_out].contiguous(),
    }


def _runs_here(route: Route, device: torch.device, dtype: torch.dtype) -> bool:
    name = next(name for name, known in DTYPES.items() if known == dtype)
    try:
        check_route(route, device, name, training=False)
    except DeviceError:
        return False
    return True


def attention_forms(qkv: Sequence[Tensor], size: Tensor, device: torch.device) -> dict[str, Form]:
    """Every route the device has, with sizes, and plain attention without."""
    routes: tuple[Route, ...] = get_args(Route)
    forms: dict[str, Form] = {
        route: functools.partial(
            lambda i, route: attend(*qkv[i], size, dropout=0.0, fused=True, route=route), route=route
        )
        for route in routes
        if _runs_here(route, device, qkv[0].dtype)
    }
    return {"no sizes": lambda i: attend(*qkv[i], None, dropout=0.0, fused=True), **forms}


def medians(forms: Mapping[str, Form], copies: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Median milliseconds of every form."""
    clock = clock_for(device)
    turn = 0

    def stepped(form: Form) -> Callable[[], object]:
        def step() -> object:
            nonlocal turn
            turn = (turn + 1) % copies
            return form(turn)

        return step

    with torch.inference_mode():
        variants = [Variant(name, stepped(form)) for name, form in forms.items()]
        for variant in variants:
            variant.step()
        steps = {v.name: calibrate(clock, v.step, clock.min_burst / 5) for v in variants}
        done = [time_round(variants, steps, clock, session=0, seed=k) for k in range(rounds)]
    return {name: 1e3 * float(np.median(step_seconds(done, name))) for name in forms}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=[name for name in DTYPES if name != "tf32"])
    parser.add_argument("--model", default="deit_ti", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", default="197,189,181,173,165,157,149,141,133,125,117,109")
    given = parser.parse_args(arguments)
    device, dtype, heads = torch.device(given.device), DTYPES[given.dtype], SHAPES[given.model]
    counts = [int(n) for n in given.tokens.split(",")]
    print(f"{given.model}, batch {given.batch}, {given.dtype}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip # noqa: E501
    channels = 64 * heads
    token_bytes = given.batch * max(counts) * 3 * channels * dtype.itemsize
    copies = max(2, min(64, 2**27 // token_bytes))  # together 128 MB: more than the caches of most machines
    for n in counts:
        generator = torch.Generator().manual_seed(n)
        draw = functools.partial(torch.randn, generator=generator)
        packed = [draw(given.batch, n, 3, heads, 64).to(device, dtype) for _ in range(copies)]
        qkv = [t.permute(2, 0, 3, 1, 4) for t in packed]
        size = torch.randint(1, 5, (given.batch, n), generator=generator).float().to(device)
        forms = {"attention": attention_forms(qkv, size, device)}
        if n == counts[len(counts) // 2]:
            x = [draw(given.batch, n, channels).to(device, dtype) for _ in range(copies)]
            plan = bipartite_soft_matching(head_mean(qkv[0][1]), R, PREFIX)
            scores = [draw(given.batch, n // 2, n // 2).to(device) for _ in range(copies)]
            forms |= {
                "mean of keys": mean_forms(qkv, x, draw(channels, channels).to(device, dtype)),
                "selection": select_forms([s.amax(dim=-1) for s in scores]),
                "partner": partner_forms(scores),
                "merging": merge_forms(plan, x, size),
            }
        for what, alternatives in forms.items():
            found = medians(alternatives, copies, device, given.rounds)
            print(f"N={n} {what}: " + ", ".join(f"{name} {ms:.3f} ms" for name, ms in found.items()))


if __name__ == "__main__":
    main()
