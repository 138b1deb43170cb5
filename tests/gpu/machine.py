"""What this machine has, in a few lines, and what is not possible without the rest. Exits with 1 if nothing is."""

from __future__ import annotations

import importlib
import platform
import subprocess
import sys
import time

NEEDED = {
    "torch": "nothing runs",
    "torchvision": "timm cannot be imported, so nothing runs",
    "timm": "nothing runs",
    "pandas": "there are no tables",
    "safetensors": "nothing runs",
    "pydantic": "no sweep runs",
    "yaml": "no sweep runs",
    "typer": "there is no command line, so no sweep runs",
}
USEFUL = {
    "pynvml": "no clock, energy or company is seen",
    "triton": "nothing is compiled for a GPU, and there is no attention route triton",
    "pytest": "no test runs",
    "hypothesis": "no test runs",
}
PACKAGES = {"yaml": "pyyaml", "pynvml": "nvidia-ml-py"}


def version(module: str) -> str | None:
    """The version of a library that can be imported; None for one that cannot."""
    from importlib import metadata

    try:
        importlib.import_module(module)
        return metadata.version(PACKAGES.get(module, module))
    except metadata.PackageNotFoundError:
        return "of unknown version"
    except Exception as error:  # noqa: BLE001 (a library may fail in any way: that is what is looked for)
        print(f"  import {module}: {type(error).__name__}: {error}", flush=True)
        return None


def gpu() -> str:
    """What the GPU is, by PyTorch and by its driver."""
    import torch

    try:
        properties = torch.cuda.get_device_properties(0)
    except (RuntimeError, AssertionError) as error:
        return f"device missing: {error}"
    gib = properties.total_memory / 2**30
    query = "name,driver_version,clocks.max.sm,clocks.sm,power.limit,temperature.gpu"
    driver = subprocess.getoutput(f"nvidia-smi --query-gpu={query} --format=csv,noheader")
    return f"{properties.name}, {gib:.0f} GiB, {properties.multi_processor_count} multiprocessors\n{driver}"


def main() -> int:
    device = sys.argv[1]
    print(f"Python {platform.python_version()} on {platform.platform()}", flush=True)
    missing = []
    for module, lost in {**NEEDED, **USEFUL}.items():
        began = time.perf_counter()
        found = version(module)
        if found is None:
            missing.append(module)
        print(
            f"{module} {found}, {time.perf_counter() - began:.1f} s" if found else f"{module} missing: {lost}",
            flush=True,
        )
    if "torch" not in missing:
        import torch

        print(f"built for CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}", flush=True)
        if device == "cuda":
            print(gpu(), flush=True)
    if missing_needed := [module for module in missing if module in NEEDED]:
        print(f"not possible: {', '.join(missing_needed)} missing")
        return 1
    from tomebench.cli import app

    return app.run(["doctor", "--device", device])


if __name__ == "__main__":
    sys.exit(main())
