"""Probes of kernels, arithmetic, the compiler and errors: defects 1, 6, 11, 12, 13, 15, 16, 17, 22 and 23."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path

import torch
from gpu.probe import Finding, Here, burst, decided, events, host_seconds, inference, nvml, probe
from gpu.probes_memory import graphs
from torch import Tensor
from torch.nn import functional as F

from tomebench.backbones.apply import apply
from tomebench.measure.compilation import compiled
from tomebench.measure.device import OVERRIDES, arithmetic
from tomebench.measure.outputs import output_excess
from tomebench.reduction.attention import attend, kernel_name, log_size_bias

_OPERATORS = {
    "aten::_flash_attention_forward": "flash",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_efficient_attention_forward": "efficient",
    "aten::_cudnn_attention_forward": "cudnn",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_attention_math": "math",
    "tomebench::vector_bias_attention": "triton",
}


def heads(here: Here, batch: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys and values as a ViT makes them, views of one tensor, and sizes of merged tokens."""
    generator = torch.Generator(here.device).manual_seed(0)
    packed = torch.randn(here.count(batch), 101, 3, 12, 64, device=here.device, generator=generator).to(dtype)
    size = torch.randint(1, 5, (len(packed), 101), device=here.device, generator=generator).float()
    return *packed.permute(2, 0, 3, 1, 4).unbind(0), size


@probe(13, "fp32 products are rounded to TF32", 6)
def full_precision(here: Here) -> Finding:
    found = [f"{name}={os.environ[name]}" for name in OVERRIDES if name in os.environ]
    a, b = (torch.randn(512, 512, device=here.device) for _ in range(2))
    with arithmetic("fp32", None):
        product = (a @ b).double()
    exact = a.double() @ b.double()
    error = ((product - exact).abs().max() / exact.abs().max()).item()
    return decided(error > 1e-5, f"largest error {error:.1e}; set: {', '.join(found) or 'nothing'}")


@probe(16, "another attention kernel runs than the one that is named", 12)
def kernel_that_ran(here: Here) -> Finding:
    q, k, v, size = heads(here, 32)
    told, apart = [], 0
    routes = ("auto", "sdpa", "efficient", "cudnn", "triton") if here.cuda else ("auto", "sdpa")
    for route in routes:
        for sizes in (None, size):
            step = inference(lambda q, r=route, s=sizes: attend(q, k, v, s, dropout=0.0, fused=True, route=r), q)
            about = {"shape": tuple(q.shape), "biased": sizes is not None, "fused": True, "dtype": q.dtype}
            try:
                named = kernel_name(route, device=here.device, **about)
                step()
                seen = events(step, here)
            except RuntimeError as error:
                told.append(f"{route}: {' '.join(str(error).split())[:60]}")
                continue
            ran = {kernel for operator, kernel in _OPERATORS.items() if seen[operator]}
            if not any(kernel in named for kernel in ran):
                apart += 1
                told.append(f"{named} ran {'/'.join(sorted(ran)) or 'something else'}")
    return decided(apart > 0, "; ".join(told) or f"all {2 * len(routes)} are what they are called")


@probe(6, "attend takes more of the host than its parts", 6)
def attend_on_host(here: Here) -> Finding:
    q, k, v, size = (t[:2] for t in heads(here, 20))
    mask = log_size_bias(size, q.dtype)
    forms = {
        "attend": lambda q: attend(q, k, v, size, dropout=0.0, fused=True),
        "scaled_dot_product_attention": lambda q: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        "log_size_bias": lambda q: log_size_bias(size, q.dtype),
    }
    micro = {}
    for name, form in forms.items():
        step, count = inference(form, q), here.count(300)
        host_seconds(here, step, count)
        micro[name] = 1e6 * host_seconds(here, step, count)[0] / count
    extra = micro["attend"] - micro["scaled_dot_product_attention"] - micro["log_size_bias"]
    told = ", ".join(f"{name} {value:.0f} µs" for name, value in micro.items())
    return decided(extra > 5, f"{extra:.0f} µs a block more than its parts: {told}")


@probe(12, "bf16 that is emulated counts as supported", 3)
def emulated(here: Here) -> Finding:
    if not here.cuda:
        return Finding("undecided", "needs CUDA")
    both = {each: torch.cuda.is_bf16_supported(including_emulation=each) for each in (True, False)}
    return decided(both[True] != both[False], f"with emulation {both[True]}, without {both[False]}")


@probe(11, "NVML does not list this process", 4)
def own_process(here: Here) -> Finding:
    torch.ones(1, device=here.device)
    library, handle = nvml(here)
    running = [process.pid for process in library.nvmlDeviceGetComputeRunningProcesses(handle)]
    own = os.getpid() in running
    return decided(not own, f"{len(running)} processes on the GPU, {'with' if own else 'without'} this one's id")


@probe(22, "Triton compiles within a burst", 15)
def triton_compiles(here: Here) -> Finding:
    model = here.vit()
    images = here.images(model, 32)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        step = inference(apply(model, 13, attention="triton" if here.cuda else "auto"), images)
        step()
        warm = len(list(Path(folder).iterdir()))
        burst(here, step, here.count(20))
        after = len(list(Path(folder).iterdir()))
    told = f"{warm} entries in Triton's cache after one pass, {after} after a burst"
    return decided(after > warm, told) if warm else Finding("undecided", told)


@probe(17, "an asynchronous error ends a burst outside the cell it belongs to", 10)
def asynchronous_error(here: Here) -> Finding:
    from tomebench.measure.device import lost
    from tomebench.sweeps.failures import CellFailed, blamed

    index = torch.tensor([10**6], device=here.device)
    x = torch.zeros(3, device=here.device)
    try:
        with blamed("r = 8", 1):
            burst(here, lambda: x.index_select(0, index), 2)
    except (RuntimeError, IndexError, CellFailed) as error:
        where = traceback.extract_tb(error.__traceback__)[-1].name
        said = " ".join(str(error).split())[:80]
        told = f"{type(error).__name__} from {where}, {'GPU lost' if lost(here.device) else 'GPU alive'}: {said}"
        return decided(not isinstance(error, CellFailed), told)
    return Finding("undecided", "no error was raised")


@probe(23, "compiling is over before the first pass is", 60, compiled=True)
def compile_seconds(here: Here) -> Finding:
    model = here.vit("vit_base_patch16_224")
    images = here.images(model, 256)
    step = inference(compiled(model) if here.cuda else model, images)
    here.synchronize()
    launched, done = host_seconds(here, step, 1)
    return decided(launched < 0.99 * done, f"{launched:.2f} s until the call returned, {done:.2f} s until it was done")


@probe(15, "a compiled random partition copies from the host, and cannot be captured", 60, compiled=True)
def random_partition(here: Here) -> Finding:
    model = here.vit("test_vit")
    images = here.images(model, 8)
    merged = apply(model, 8, partition="random")
    forward = compiled(merged) if here.cuda else merged
    with torch.inference_mode():
        forward(images)
        seen = events(lambda: forward(images), here)
        copies = sum(count for name, count in seen.items() if "Memcpy HtoD" in name)
        try:
            graphs(here, [forward])[0](images)
            here.synchronize()
            captured = "captured"
        except RuntimeError as error:
            captured = f"not captured: {' '.join(str(error).split())[:100]}"
    return decided(copies > 0 or captured != "captured", f"{copies} copies from the host in a pass; {captured}")


@probe(1, "compiled bf16 logits are taken for another output", 120, compiled=True)
def compiled_logits(here: Here) -> Finding:
    began, told, worst = time.perf_counter(), [], 0.0
    model = here.vit("deit_tiny_patch16_224")
    images = here.images(model, 64)
    for r in (16, 22):
        merged = apply(model, r)
        forward = compiled(merged) if here.cuda else merged
        with torch.inference_mode():
            eager, found = merged(images).float(), forward(images)
        apart = ((found.float() - eager).abs().amax(1) / eager.abs().amax(1)).median().item()
        excess = output_excess(found, merged, images, "bf16")
        worst = max(worst, excess)
        told.append(f"r = {r}: the middle image by {apart:.1%}, which is {excess:.2f} of what rounding explains")
    return decided(worst > 1, f"{'; '.join(told)} ({time.perf_counter() - began:.0f} s)")
