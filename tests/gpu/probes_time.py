"""Probes of clocks, power and time: defects 2, 3, 4, 7, 8, 9, 20, 21 and 24."""

from __future__ import annotations

import gc
import time

import torch
from gpu.probe import (
    Finding,
    Here,
    burst,
    decided,
    events,
    host_seconds,
    inference,
    median,
    nvml,
    probe,
    sampled,
    steps_lasting,
)

from tomebench.backbones.apply import apply
from tomebench.measure.machine import throttle_reasons
from tomebench.runs.validity import host_bound
from tomebench.schema import Burst


@probe(3, "the clock after a burst is not the clock in it", 12)
def clock_after(here: Here) -> Finding:
    model = here.vit()
    step = inference(model, here.images(model, 256))
    steps = steps_lasting(here, step, here.seconds(3))
    library, handle = nvml(here)
    with sampled(here) as samples:
        burst(here, step, steps)
        after = library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM)
    inside, most = median(samples.mhz), library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_SM)
    figure = f"{after} MHz after, {inside} ({min(samples.mhz)} to {max(samples.mhz)}) in it, at most {most} MHz"
    return decided(abs(after - inside) > 0.01 * inside, f"{figure}, throttled by {throttle_reasons(samples.reasons)}")


@probe(2, "r = 0 runs at a lower clock than r = 16, or than the highest", 14)
def clock_by_r(here: Here) -> Finding:
    model, clocks, watts, reasons = here.vit(), {}, {}, 0
    images = here.images(model, 256)
    for r in (0, 16):
        step = inference(apply(model, r), images)
        steps = steps_lasting(here, step, here.seconds(2))
        with sampled(here) as samples:
            burst(here, step, steps)
        clocks[r], watts[r], reasons = median(samples.mhz), median(samples.watts), reasons | samples.reasons
    library, handle = nvml(here)
    most = library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_SM)
    told = ", ".join(f"r = {r} at {clocks[r]} MHz and {watts[r]:.0f} W" for r in clocks)
    holds = clocks[0] < 0.9 * clocks[16] or clocks[0] < 0.9 * most
    return decided(holds, f"{told}, at most {most} MHz, throttled by {throttle_reasons(reasons)}")


@probe(4, "alternating 250 ms bursts give another speed-up than 5 s alone", 30)
def short_bursts(here: Here) -> Finding:
    model = here.vit()
    images = here.images(model, 256)
    steps_of = {r: inference(apply(model, r), images) for r in (0, 13)}
    short = {r: steps_lasting(here, step, here.seconds(0.25)) for r, step in steps_of.items()}
    seconds: dict[int, list[float]] = {0: [], 13: []}
    for _ in range(here.count(12)):
        for r, step in steps_of.items():
            seconds[r].append(burst(here, step, short[r]) / short[r])
    in_short = median([a / b for a, b in zip(seconds[0], seconds[13], strict=True)])
    alone = {r: burst(here, step, 20 * short[r]) / (20 * short[r]) for r, step in steps_of.items()}
    in_long = alone[0] / alone[13]
    return decided(abs(in_short / in_long - 1) > 0.01, f"{in_short:.3f}x in short bursts against {in_long:.3f}x alone")


@probe(9, "250 ms bursts give another energy than 3 s", 16)
def energy(here: Here) -> Finding:
    model = here.vit()
    step = inference(model, here.images(model, 256))
    steps = steps_lasting(here, step, here.seconds(0.25))
    library, handle = nvml(here)

    def joules() -> float:
        return library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3

    for _ in range(3 * steps):
        step()
    changes, last, end = [], joules(), time.perf_counter() + 0.6
    while (now := time.perf_counter()) < end:
        if (value := joules()) != last:
            changes.append(now)
            last = value
    here.synchronize()
    update = (changes[-1] - changes[0]) / (len(changes) - 1) if len(changes) > 1 else float("nan")

    def per_step(count: int) -> float:
        before = joules()
        burst(here, step, count)
        return (joules() - before) / count

    short, long = [per_step(steps) for _ in range(here.count(12))], per_step(12 * steps)
    figure = f"counter updates every {1e3 * update:.0f} ms; {min(short):.2f} to {max(short):.2f} J a pass in 250 ms"
    off = max(abs(value / long - 1) for value in short) if long else float("inf")
    return decided(off > 0.05, f"{figure} against {long:.2f} in 3 s")


@probe(7, "a pass that waits for the host is not marked, or one that does not is", 12)
def unmarked_host_bound(here: Here) -> Finding:
    told, marked = [], []
    for name, batch in (("deit_tiny_patch16_224", 1), ("vit_base_patch16_224", 256)):  # surely, and surely not
        model = here.vit(name)
        step, clock = inference(apply(model, 8), here.images(model, batch)), here.clock
        steps = steps_lasting(here, step, here.seconds(0.25))
        done = clock.burst(step, steps)
        seen = Burst(name, steps, done, backlog=clock.backlog)
        marked.append(host_bound([seen]))
        left = f"{1e3 * seen.backlog:.2f} ms" if seen.backlog is not None else "nothing"
        told.append(f"{name} at batch {batch}: {left} left of {steps} passes of {1e3 * done / steps:.2f} ms")
    return decided(marked != [True, False], "; ".join(told))


@probe(8, "the clock misses work on a second stream", 6)
def second_stream(here: Here) -> Finding:
    side = torch.cuda.Stream() if here.cuda else None
    x = torch.randn(here.count(4096), here.count(4096), device=here.device, dtype=torch.bfloat16)

    def step() -> None:
        with torch.cuda.stream(side):  # does nothing with None
            for _ in range(here.count(20)):
                x @ x

    def wall(steps: int) -> float:
        return host_seconds(here, step, steps)[1]

    burst(here, step, 1)
    told, seen = [], []
    for steps in (1, 100 if not here.small else 2):  # a single pass under 10 ms, and a long burst
        seen.append(burst(here, step, steps) / wall(steps))
        told.append(f"{seen[-1]:.0%} of {1e3 * wall(steps):.1f} ms")
    return decided(min(seen) < 0.9, f"the clock saw {' and '.join(told)}")


@probe(20, "a caller waits longer at batch 1 than events say", 8)
def single_passes(here: Here) -> Finding:
    told, apart = [], []
    for name in ("deit_tiny_patch16_224", "vit_base_patch16_224"):
        model = here.vit(name)
        step = inference(model, here.images(model, 1))
        steps_lasting(here, step, here.seconds(0.2))
        by_event = median([burst(here, step, 1) for _ in range(here.count(100))])
        by_wall = median([host_seconds(here, step, 1)[1] for _ in range(here.count(100))])
        apart.append(by_wall / by_event)
        told.append(f"{name} {1e3 * by_event:.3f} ms by events, {1e3 * by_wall:.3f} ms by wall")
    return decided(max(apart) > 1.05, "; ".join(told))


@probe(24, "the collector runs in bursts", 10)
def scaler_waits(here: Here) -> Finding:
    from tomebench.measure.training import Trainer

    model = here.vit("deit_tiny_patch16_224", torch.float32).train()
    images = here.images(model, 32)
    labels = torch.zeros(len(images), dtype=torch.int64, device=here.device)
    waits = {}
    for dtype in (torch.float16, torch.bfloat16):
        trainer = Trainer(model, dtype, here.device)
        for _ in range(2):
            trainer.step(model, images, labels)
        seen = events(lambda trainer=trainer: trainer.step(model, images, labels), here)
        waits[dtype] = seen["aten::_local_scalar_dense"]
    collections: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            collections.append(info["generation"])

    gc.callbacks.append(count)
    step = inference(apply(model.eval(), 8), images)
    burst(here, step, here.count(200))
    gc.callbacks.remove(count)
    told = f"the host waits {waits[torch.float16]} times in a step of fp16 training, {waits[torch.bfloat16]} in bf16"
    return decided(bool(collections), f"{len(collections)} collections in a burst; {told}")


@probe(21, "reading the logits back after every batch takes time", 10)
def waiting_pipeline(here: Here) -> Finding:
    model = here.vit("vit_small_patch16_224")
    batch = here.images(model, 128).cpu()
    batches = [batch.pin_memory() if here.cuda else batch for _ in range(4)]

    def run(wait: bool) -> float:
        start, kept = time.perf_counter(), []
        with torch.inference_mode():
            for i in range(here.count(60)):
                logits = model(batches[i % 4].to(here.device, non_blocking=True))
                kept.append(logits.cpu() if wait else logits)
        here.synchronize()
        return time.perf_counter() - start

    run(True)
    waiting, free = median([run(True) for _ in range(3)]), median([run(False) for _ in range(3)])
    return decided(waiting > 1.02 * free, f"{waiting / free:.3f} times as long as without a wait")
