"""The attention routes beside each other: a whole ViT at r = 13, every route in the same rounds in random order."""

from __future__ import annotations

import argparse
from typing import get_args

import timm
import torch

from tomebench.backbones.apply import apply
from tomebench.errors import DeviceError
from tomebench.measure.clock import clock_for
from tomebench.measure.device import arithmetic
from tomebench.measure.speed import Variant, calibrate, time_round
from tomebench.reduction.attention import check_route
from tomebench.runs.rounds import paired_seconds, step_seconds
from tomebench.schema import Route
from tomebench.stats import speedup

ROUNDS, R = 6, 13
BURST = 0.125
"""Seconds of a burst: eight routes are to be through in a quarter of a minute."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["cuda", "cpu"])
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    device, dtype = torch.device(given.device), torch.bfloat16
    name, batch = ("test_vit", 2) if given.dry_run else ("vit_base_patch16_224", 256)
    with device:
        model = timm.create_model(name).eval().to(dtype)
        generator = torch.Generator(device).manual_seed(0)
        shape = (batch, *model.default_cfg["input_size"])
        images = [torch.randn(shape, dtype=dtype, generator=generator) for _ in range(2)]
    clock, variants, turn = clock_for(device), [], 0

    def step_of(route: Route):
        merged = apply(model, R, attention=route)

        def step() -> object:
            nonlocal turn
            turn += 1
            return merged(images[turn % len(images)])

        return step

    with torch.inference_mode(), arithmetic("bf16", None):
        steps: dict[str, int] = {}
        for route in get_args(Route):
            try:
                check_route(route, device, "bf16", training=False)
                step = step_of(route)
                step()
                steps[route] = 1 if given.dry_run else calibrate(clock, step, BURST)
            except (DeviceError, RuntimeError) as error:
                print(f"{route}: does not run here: {' '.join(str(error).split())[:160]}", flush=True)
                continue
            variants.append(Variant(route, step))
        rounds = [time_round(variants, steps, clock, session=0, seed=k) for k in range(ROUNDS)]
    print(f"{name}, batch {batch}, bf16, r = {R}, {device}, {ROUNDS} rounds")
    for variant in variants:
        seconds = sorted(step_seconds(rounds, variant.name))[ROUNDS // 2]
        line = f"{variant.name}: {batch / seconds:.0f} img/s"
        if variant.name != "auto":
            ratio = speedup(*paired_seconds(rounds, "auto", variant.name))
            line += f", {ratio.value:.3f}x of auto [{ratio.interval.lo:.3f}, {ratio.interval.hi:.3f}]"
        print(line, flush=True)


if __name__ == "__main__":
    main()
