"""Probes of memory and CUDA graphs: defects 5, 10, 14, 18 and 19."""

from __future__ import annotations

import inspect
import traceback

import torch
from gpu.probe import Finding, Here, burst, decided, inference, probe
from torch.utils.data import DataLoader, TensorDataset

from tomebench.backbones.apply import apply
from tomebench.measure.cuda_graph import GraphedForward

MIB = 2**20


def in_use(here: Here) -> int:
    """Bytes of the device that are taken, by whomever."""
    if not here.cuda:
        return 0
    free, total = torch.cuda.mem_get_info(here.device)
    return total - free


def graphs(here: Here, models: list) -> list:
    """The models' passes as CUDA graphs of one pool; elsewhere as they are."""
    if not here.cuda:
        return models
    pool = torch.cuda.graph_pool_handle()
    return [GraphedForward(model, pool) for model in models]


@probe(19, "the allocator asks the device within bursts", 12)
def allocations(here: Here) -> Finding:
    model = here.vit()
    images = here.images(model, 256)
    steps = [inference(apply(model, r), images) for r in (0, 8, 13)]

    def counts() -> list[int]:
        stats = torch.cuda.memory_stats(here.device) if here.cuda else {}
        return [stats.get(name, 0) for name in ("num_device_alloc", "num_device_free", "num_alloc_retries")]

    for step in steps:
        burst(here, step, 3)
    before = counts()
    for _ in range(here.count(5)):
        for step in steps:
            burst(here, step, here.count(10))
    rise = [new - old for new, old in zip(counts(), before, strict=True)]
    return decided(any(rise), f"{rise[0]} allocations, {rise[1]} releases and {rise[2]} retries after the warm-up")


@probe(10, "more is taken on the device than its context and the allocator's peak", 8)
def device_memory(here: Here) -> Finding:
    context = torch.ones(1, device=here.device)
    alone, model = in_use(here), here.vit()
    step = inference(apply(model, 8), here.images(model, 256))
    burst(here, step, 3)
    peak = torch.cuda.max_memory_allocated(here.device) if here.cuda else 1
    reserved = torch.cuda.memory_reserved(here.device) if here.cuda else 1
    taken = in_use(here)
    told = f"{taken // MIB} MiB taken, {alone // MIB} before the model, {reserved // MIB} reserved"
    del context
    return decided(taken - alone > 1.1 * peak, f"{told}; the allocator's peak is {peak // MIB} MiB")


@probe(18, "27 graphs take half as much memory again as one, or more", 20)
def many_graphs(here: Here) -> Finding:
    model = here.vit("vit_small_patch16_224")
    images = here.images(model, 64)
    with torch.inference_mode():
        model(images)
        before, used = in_use(here), []
        made = graphs(here, [apply(model, r) for r in (*range(25), 8, 13)][: 27 if not here.small else 3])
        for graph in made:
            graph(images)
            here.synchronize()
            used.append(in_use(here) - before)
    told = f"{used[0] // MIB} MiB for one, {used[-1] // MIB} MiB for {len(used)}"
    return decided(used[-1] > 1.5 * used[0], told)


@probe(14, "constants of merging die before the graphs that read them", 20)
def live_constants(here: Here) -> Finding:
    model = here.vit("deit_tiny_patch16_224", torch.float32)
    images = here.images(model, 2)
    spec = range(25) if not here.small else (0, 8)
    with torch.inference_mode():
        merged = [apply(model, r, partition="random") for r in spec]
        made = graphs(here, merged)
        for graph in made:
            graph(images)
        junk = [torch.full((2**18,), -1, device=here.device) for _ in range(64)]  # over whatever was freed
        apart = [(graph(images) - eager(images)).abs().max().item() for graph, eager in zip(made, merged, strict=True)]
        del junk
        worst, checked = max(apart), "the check of liveness is not in this version"
        if here.cuda and "check_input_liveness" in inspect.signature(torch.cuda.graph.__init__).parameters:
            checked = "inputs live"
            try:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, check_input_liveness=True):
                    merged[-1](images)
                graph.replay()
                here.synchronize()
            except RuntimeError as error:
                checked = f"liveness: {' '.join(str(error).split())[:120]}"
    holds = not worst < 1e-3 or checked.startswith("liveness")
    return decided(holds, f"{len(made)} graphs replayed, at most {worst:.1e} from eager; {checked}")


@probe(5, "a capture dies while a loader pins memory", 20)
def capture_beside_loader(here: Here) -> Finding:
    model = here.vit("deit_tiny_patch16_224")
    size = model.default_cfg["input_size"]
    data = TensorDataset(torch.zeros(here.count(400), *size, dtype=torch.bfloat16))
    loader = DataLoader(data, batch_size=2, num_workers=2, pin_memory=here.cuda, prefetch_factor=4)
    captured = 0
    try:
        with torch.inference_mode():
            for number, (images,) in enumerate(loader):
                if number % 4 == 0:
                    (graph,) = graphs(here, [apply(model, number % 16)])
                    captured += 1
                graph(images.to(here.device, non_blocking=True))
        here.synchronize()
    except RuntimeError as error:
        where = traceback.extract_tb(error.__traceback__)[-1].name
        return decided(True, f"capture {captured} died in {where}: {' '.join(str(error).split())[:160]}")
    return decided(False, f"{captured} captures beside the loader, none died")
