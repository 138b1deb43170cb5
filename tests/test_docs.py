"""What the documents say is there, and what they tell a reader to type runs: small models and images stand in."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tomebench.cli import app
from tomebench.datasets.classes import wnids
from tomebench.measure import budget, clock, speed
from tomebench.models.create import build_model

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / ".github", ROOT / "results", ROOT / "tests", ROOT / "tomebench")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
    if ".keep" not in str(path) and "golden" not in path.name
)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a link may name in a page, as GitHub makes it of the headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files and headings that are not there."""
    found = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One two\n[a](b.md) [b](#one-two) [c](#three) [d](https://example.org)")
    assert broken_links(page) == ["b.md", "#three"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def commands(text: str) -> Iterator[str]:
    """Lines of shell blocks that start the program, comments off, continued lines joined."""
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("tomebench "):
                yield line.partition(" #")[0].strip()


EXAMPLES = sorted({line for page in PAGES for line in commands(page.read_text()) if "--self-check" not in line})
"""A self-check measures in processes of its own, for minutes; its tests are those of the gate."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the documents name: weights, pictures in ImageNet's and in own classes, stored runs."""
    root = tmp_path_factory.mktemp("house")
    own = [f"class {letter}" for letter in "abc"]
    for folder, names in (
        ("imagenet/val", wnids()[:2]),
        ("my_pictures", own),
        ("DIR", wnids()[:2]),
        ("DATA", wnids()[:2]),
    ):
        for number, name in enumerate(names):
            (root / folder / name).mkdir(parents=True)
            for image in range(2):
                pixels = np.random.Generator(np.random.PCG64(10 * number + image)).integers(
                    0, 255, (40, 40, 3), np.uint8
                )
                Image.fromarray(pixels).save(root / folder / name / f"ILSVRC2012_val_{image + 1:08d}.JPEG")
    save_file(dict(build_model("test_vit").model.state_dict()), root / "w.safetensors")
    save_file(dict(build_model("test_vit", num_classes=3).model.state_dict()), root / "my_best.pth.tar")
    (root / "real.json").write_text(str([[0]] * 50_000))
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as here:
        fast(patch)
        here.chdir(root)
        common = ("--model", "test_vit", "--r", "0,4", "--device", "cpu", "--batch-size", "2", "--quiet")
        assert app.run(["sweep", *common, "--out", "runs/a"]) == 0
        for run in ("runs/b", "results/a", "results/b", "results/new"):
            shutil.copytree("runs/a", run)
        assert app.run(["check", "runs/a", "--baseline", "a.json", "--update-baseline"]) == 0
        shutil.copy("a.json", "old.json")
        assert app.run(["doctor", "--data", "DATA", "--manifest", "val.sha256"]) == 0
    return root


def stand_in(line: str) -> list[str]:
    """The words of a command after the program's name, with a small model and no GPU."""
    words = shlex.split(line)[1:]

    def value(flag: str, new: str | None) -> None:
        if flag in words:
            at = words.index(flag)
            words[at : at + 2] = [] if new is None else [flag, new]

    if words[0] in ("sweep", "ablate", "plan", "profile"):
        value("--model", "test_vit")
        value("--device", "cpu")
        value("--nproc-per-node", None)
        value("--cells", "1/2")
        words += ["--device", "cpu"] if "--device" not in words else []
        for slow in ("--compile", "--end-to-end", "--cuda-graphs"):
            words[:] = [word for word in words if word != slow]
        if "--data" in words and "--checkpoint" not in words:
            words += ["--checkpoint", "w.safetensors"]
        if words[0] in ("sweep", "ablate") and "--batch-size" not in words:
            words += ["--batch-size", "2"]
        if words[0] in ("sweep", "ablate") and "--out" not in words and "--name" not in words:
            words += ["--name", f"run{abs(hash(line))}"]
        value("--cache", "pixels")
        if words[0] in ("sweep", "ablate"):
            value("--r", "0,4")
            words += [] if "--r" in words else ["--r", "0,4"]
    elif words[0] == "reproduce" and not words[1].startswith("--"):
        words[1] = "digits"
        for flag in ("--data", "--weights", "--device", "--dtype"):
            value(flag, None)
        words += ["--batch-size", "8", "--limit", "16"]
    return words


def fast(patch: pytest.MonkeyPatch) -> None:
    """One round of one pass each: what is measured is of no interest here."""
    for name in ("quick", "standard", "publish"):
        patch.setitem(budget.BUDGETS, name, budget.Budget(name, 1, 100.0, 0.0))
    patch.setattr(clock.CpuClock, "min_burst", 1e-6)
    patch.setattr(speed, "WINDOW", 1)


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_run(
    line: str, house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(house)
    fast(monkeypatch)
    words = stand_in(line)
    if words[0] == "reproduce" and any(stand_in(other) == words for other in EXAMPLES[: EXAMPLES.index(line)]):
        return  # the same stands in for both
    code = app.run(words)
    said = capsys.readouterr()
    assert code in (0, 3, 4), said.err


def test_python_examples_run(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house)
    fast(monkeypatch)
    pages = (ROOT / "README.md", ROOT / "tomebench" / "models" / "README.md")  # the second goes on where the first ends
    blocks = [
        block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    ]
    stand_ins = {
        '"vit_base_patch16_224.augreg_in21k_ft_in1k", pretrained=True': '"test_vit", num_classes=3',
        "progress=True": 'device="cpu", batch_size=2, workers=0',
        "reshape(-1, 14, 14)": "reshape(-1, 10, 10)",
    }
    names = {"images": torch.randn(2, 3, 160, 160)}
    for block in blocks:
        for old, new in stand_ins.items():
            block = block.replace(old, new)
        exec(block, names)
    assert torch.equal(names["logits"], names["merged"](names["images"]))
    assert len(names["table"]) == 3
