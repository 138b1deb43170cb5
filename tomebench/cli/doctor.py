"""``tomebench doctor``: check device, libraries, threads, disk, model, images before a sweep; report all problems."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import tomebench
from tomebench.cli.doctor_data import Check, data_findings
from tomebench.cli.options import Decode, Json, Manifest, Traceback, setting
from tomebench.cli.outputs import writable
from tomebench.errors import InputError, TomebenchError
from tomebench.models.spec import ModelSpec
from tomebench.words import counted

_REQUIRED = ("torch", "torchvision", "timm", "numpy", "pandas", "safetensors")
_OPTIONAL = {
    "matplotlib": ("report", "there will be no figure"),
    "datasets": ("hf", "--data hfds/NAME cannot be read"),
    "transformers": ("hf", "--model hf/NAME cannot be read"),
    "scikit-learn": ("probe", "fit-head --head linear cannot fit"),
}
"""Optional libraries: name to its extra, and what is not possible without it."""
_MIN_FREE = 200 * 2**20


def doctor(
    model: Annotated[str | None, setting("model")] = None,
    checkpoint: Annotated[Path | None, setting("checkpoint")] = None,
    use_ema: Annotated[bool | None, setting("use_ema")] = None,
    num_classes: Annotated[int | None, setting("num_classes")] = None,
    class_head: Annotated[Path | None, setting("class_head")] = None,
    class_names: Annotated[str | None, setting("class_names")] = None,
    data: Annotated[str | None, setting("data")] = None,
    real: Annotated[Path | None, setting("real")] = None,
    verify: Annotated[Path | None, setting("verify")] = None,
    manifest: Manifest = None,
    decode: Decode = False,
    device: Annotated[str | None, setting("device")] = None,
    dtype: Annotated[str | None, setting("dtype")] = None,
    threads: Annotated[int | None, setting("threads")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Device, libraries, threads, disk: what would go wrong.

    Example: tomebench doctor

    Example: tomebench doctor --model vit_b_16 --data imagenet/val --device cuda

    Example: tomebench doctor --model vit_b_16 --checkpoint my.pth --data mine

    Example: tomebench doctor --data imagenet/val --manifest val.sha256

    Looks at a model, its weights and images as well, if they are given. Exits with 2 if something that was asked for is
    not there.
    """
    from tomebench.cli.console import open_screen

    findings = [*_libraries(), *_folder()]
    if all(finding.state == "ok" for finding in findings if finding.what in _REQUIRED):
        findings += [*_device(device, dtype), *_threads(threads)]
        asked = None
        if model is not None:
            asked = ModelSpec(
                model,
                checkpoint,
                use_ema,
                num_classes,
                class_names,
                labelled=data is not None,
                evaluated=data is not None,
                offline=bool(offline),
                class_head=class_head,
            )
        if asked is not None:
            findings += _asked("model", lambda: _model(asked))
        elif checkpoint is not None:
            findings.append(Check("model", "fail", "--checkpoint needs the model it belongs to; add --model"))
        if data is not None:
            try:
                if manifest is not None:
                    writable("--manifest", manifest)
            except TomebenchError as error:
                findings.append(Check("manifest", "fail", str(error)))
                manifest = None
            findings += data_findings(
                data, asked, real=real, verify=verify, manifest=manifest, decode=decode, offline=bool(offline)
            )
        elif real or verify or manifest or decode:
            text = "--real, --verify, --manifest and --decode are about images; add --data"
            findings.append(Check("data", "fail", text))
    screen = open_screen(as_json=json)
    if screen.as_json:
        screen.object({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        wrong = [finding for finding in findings if finding.state != "ok"]
        names = ", ".join(dict.fromkeys(finding.what for finding in wrong))
        screen.line(f"look at {names}" if wrong else "nothing is in the way", style="bold")
        longest = max(len(finding.what) for finding in findings)
        screen.entries([(f"{f.what:{longest}}  {f.state:4}", f.text) for f in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(InputError.exit_code)


def _libraries() -> Iterator[Check]:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("tomebench", "ok", f"{tomebench.__version__}, {where}")
    for name in _REQUIRED:
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "fail", "not installed; run: pip install tomebench")
    for name, (extra, lost) in _OPTIONAL.items():
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "warn", f"not installed, so {lost}; pip install 'tomebench[{extra}]'")


def _folder() -> Iterator[Check]:
    folder = Path("results") if Path("results").is_dir() else Path()
    free = shutil.disk_usage(folder).free
    size = f"{free / 2**30:.1f} GiB free"
    if not os.access(folder, os.W_OK):
        yield Check("results", "warn", f"{folder.absolute()} cannot be written to; use --out with another folder")
    elif free < _MIN_FREE:
        yield Check("results", "warn", f"only {size} in {folder.absolute()}; free some, or use --out elsewhere")
    else:
        yield Check("results", "ok", f"{folder.absolute()}, {size}")


def _device(name: str | None, dtype: str | None) -> list[Check]:
    from tomebench.measure.device import resolve_device
    from tomebench.measure.testbed import describe
    from tomebench.runs.testbed import UNAVAILABLE

    try:
        device = resolve_device(name or "auto", dtype or "fp32")
    except TomebenchError as error:
        return [Check("device", "fail", str(error))]
    testbed = describe(device, 1)
    driver = "" if testbed["driver"] == UNAVAILABLE else f", driver {testbed['driver']}, CUDA {testbed['cuda']}"
    return [Check("device", "ok", f"{device}: {testbed['device_name']}{driver}")]


def _threads(asked: int | None) -> list[Check]:
    import torch

    from tomebench.measure.cgroup import usable_cpus

    if asked is not None and asked < 1:
        return [Check("threads", "fail", f"{asked} is no number of threads; use 1 or more")]
    cpus, threads = usable_cpus(), asked or torch.get_num_threads()
    text = f"{threads} on {cpus:g} usable CPUs"
    if threads > cpus:
        return [Check("threads", "warn", f"{text}: they will wait for each other; use --threads {max(int(cpus), 1)}")]
    return [Check("threads", "ok", text)]


def _asked(what: str, look: Callable[[], str]) -> list[Check]:
    """Check something that the user named; an error becomes a failed check."""
    try:
        return [Check(what, "ok", look())]
    except TomebenchError as error:
        return [Check(what, "fail", str(error))]


def _model(spec: ModelSpec) -> str:
    from tomebench.backbones.adapt import adapt
    from tomebench.models.create import build_model, load_model

    loaded = build_model(spec, meta=True) if spec.checkpoint is None else load_model(spec)
    backbone = adapt(loaded.model)
    tokens, blocks = counted(backbone.tokens, "token"), counted(backbone.depth, "block")
    text = f"{loaded.timm_id}: {tokens}, {backbone.prefix} of them never merged, {blocks}"
    text += f", {counted(loaded.head.num_classes, 'class')}"
    if spec.checkpoint is not None:
        text += f", weights {loaded.weights}"
    return "; ".join([text, *loaded.notes])
