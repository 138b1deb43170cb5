"""What the documents say is there, and what they tell a reader to type runs: small models and images stand in."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import hf_texts
import numpy as np
import pytest
import torch
from hf_folders import save
from PIL import Image
from safetensors.torch import save_file

from tomebench.cli import app
from tomebench.datasets.classes import wnids
from tomebench.measure import clock, speed
from tomebench.models.create import build_model
from tomebench.runs import budget

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


def help_texts() -> Iterator[str]:
    """What ``--help`` prints of the program and of every command."""
    yield str(app.app.info.help)
    for command in app.app.registered_commands:
        yield str(command.help or inspect.getdoc(command.callback))


def proposed() -> set[str]:
    """Commands that help screens and messages tell a reader to type."""
    examples = {line for text in help_texts() for line in re.findall(r"(?:Example:|Start with:) (.+)", text)}
    sources = (path.read_text() for path in (ROOT / "tomebench").rglob("*.py"))
    return examples | {line for text in sources for line in re.findall(r"see: (tomebench list \w+(?: \w+)?)", text)}


LINES = sorted({line.strip() for line in (*proposed(), *(x for page in PAGES for x in commands(page.read_text())))})


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
        ("mine", own),
    ):
        for number, name in enumerate(names):
            (root / folder / name).mkdir(parents=True)
            for image in range(2):
                pixels = np.random.Generator(np.random.PCG64(10 * number + image)).integers(
                    0, 255, (40, 40, 3), np.uint8
                )
                Image.fromarray(pixels).save(root / folder / name / f"ILSVRC2012_val_{image + 1:08d}.JPEG")
    save_file(dict(build_model("test_vit").model.state_dict()), root / "w.safetensors")
    for mine in ("my_best.pth.tar", "my.pth"):
        save_file(dict(build_model("test_vit", num_classes=3).model.state_dict()), root / mine)
    pytest.importorskip("transformers")
    save(build_own(own), root / "my_finetuned_dinov2")
    save(build_own([]), root / "my_dino")
    hf_texts.folder("clip", root / "my_clip")
    (root / "names.txt").write_text("\n".join(own))
    (root / "real.json").write_text(str([[0]] * 50_000))
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as here:
        fast(patch)
        here.chdir(root)
        classes = ("--class-names", "names.txt", "--out", "classes.safetensors")
        assert app.run(["embed-classes", "--model", "hf/my_clip", *classes]) == 0
        fit = ("--data", "my_pictures", "--limit", "3", "--device", "cpu", "--workers", "0", "--out", "knn.safetensors")
        assert app.run(["fit-head", "--model", "hf/my_dino", "--k", "1", *fit]) == 0
        common = ("--model", "test_vit", "--r", "0,4", "--device", "cpu", "--batch-size", "2", "--quiet")
        assert app.run(["sweep", *common, "--out", "runs/a"]) == 0
        for run in ("runs/b", "results/a", "results/b", "results/new", "results/demo", "results/cpu", "results/cuda"):
            shutil.copytree("runs/a", run)
        small = ("--limit", "8", "--batch-size", "8", "--r", "0,4", "--quiet")
        assert app.run(["demo", *small, "--out", "results/methods"]) == 0  # with top-1, to be compared
        for part in (1, 2):
            out = f"results/array-cells-{part}-of-2"
            assert app.run(["sweep", *common, "--cells", f"{part}/2", "--out", out]) == 0
        assert app.run(["check", "runs/a", "--baseline", "a.json", "--update-baseline"]) == 0
        evaluated = ("--data", "DATA", "--checkpoint", "w.safetensors", "--until", "all", "--budget", "none")
        assert app.run(["sweep", *common, *evaluated, "--out", "runs/order"]) == 0
        assert app.run(["check", "runs/order", "--baseline", "order.json", "--update-baseline"]) == 0
        for copy in ("old.json", "results/baselines/demo.json"):
            Path(copy).parent.mkdir(exist_ok=True)
            shutil.copy("a.json", copy)
        assert app.run(["doctor", "--data", "DATA", "--manifest", "val.sha256"]) == 0
    return root


def build_own(classes: list[str]) -> torch.nn.Module:
    """A small model of transformers of these classes; without any, an encoder."""
    import transformers

    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16, "image_size": 32}
    if not classes:
        return transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).eval()
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    return transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes, **labels)).eval()


_SWEEPS = ("sweep", "ablate", "plan", "profile", "features", "doctor", "staircase", "search")


def stand_in(line: str) -> list[str]:
    """The words of a command after the program's name, with a small model and no GPU."""
    words = shlex.split(line)[1:]

    def value(flag: str, new: str | None) -> None:
        if flag in words:
            at = words.index(flag)
            words[at : at + 2] = [] if new is None else [flag, new]

    if words[0] == "train-predictors":
        value("--data", "digits-train" if "digits-train" in words else "DATA")
        if "DATA" in words:
            value("--model", "test_vit")
            words += ["--checkpoint", "w.safetensors"]
        words += ["--steps", "1", "--batch-size", "2", "--limit", "4", "--device", "cpu"]
    elif "--predictors" in words:  # of a model and data that the words before chose
        words += ["--device", "cpu", "--batch-size", "2", *(["--limit", "4"] if "--data" in words else [])]
    elif words[0] == "fit-head":
        value("--limit", "3")
        words += ["--device", "cpu", "--k", "1"]
    elif words[0] in _SWEEPS or words[:2] == ["recommend", "--model"]:
        own = any(word.startswith("hf/my_") for word in words)
        if not own:
            value("--model", "test_vit")
        value("--batch-size", "2")
        value("--device", "cpu")
        value("--nproc-per-node", None)
        value("--processes", None)
        words[:] = ["standard" if word == "publish" else word for word in words]  # which starts five of them
        value("--cells", "1/2")
        value("--share", "1/2")
        words += ["--step", "40"] if words[0] == "staircase" and "--show" not in words else []
        words += ["--device", "cpu"] if "--device" not in words else []
        for slow in ("--compile", "--end-to-end", "--cuda-graphs"):
            words[:] = [word for word in words if word != slow]
        if "--data" in words and "--model" in words and "--checkpoint" not in words and not own:
            words += ["--checkpoint", "w.safetensors"]
        words += ["--tries", "2"] if words[0] == "search" else []
        if words[0] in ("sweep", "ablate", "profile", "recommend", "search") and "--batch-size" not in words:
            words += ["--batch-size", "2"]
        value("--cache", "pixels")
        if words[0] in ("sweep", "ablate", "recommend", "search"):
            value("--r", "0,4")
            words += [] if "--r" in words else ["--r", "0,4"]
        if words[0] == "ablate" and "--model" not in words:
            words += ["--limit", "8"]
    elif words[0] == "list":
        words = ["kmeans" if word == "NAME" else word for word in words]
    elif words[0] == "demo":
        words += ["--limit", "8", "--batch-size", "8", "--r", "0,4"]
    elif words[0] == "reproduce" and not words[1].startswith("--"):
        words[1] = "digits"
        for flag in ("--data", "--weights", "--device", "--dtype"):
            value(flag, None)
        words += ["--batch-size", "8", "--limit", "16"]
    return words


def fast(patch: pytest.MonkeyPatch) -> None:
    """One round of one pass each, and no figure: what is measured is of no interest here."""
    patch.setattr("tomebench.report.write.speed_accuracy_figure", lambda *arguments, **_: "no figure")
    for name in ("quick", "standard", "publish"):
        patch.setitem(budget.BUDGETS, name, budget.Budget(name, 1, 100.0, 0.0))
    patch.setattr(clock.CpuClock, "min_burst", 1e-6)
    patch.setattr(speed, "WINDOW", 1)


EXAMPLES = {tuple(stand_in(line)): line for line in LINES if "--self-check" not in line}
"""Lines by what stands in for them. A self-check measures for minutes; its tests are those of the gate."""

PROPOSED: set[tuple[str, ...]] = set()
"""What has run already: many commands propose the same one."""


@pytest.mark.parametrize("words", EXAMPLES, ids=EXAMPLES.values())
def test_examples_run(
    words: tuple[str, ...], house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(house)
    fast(monkeypatch)
    first = words
    for number in range(3):  # what a run proposes, and what that proposes
        if number and words in PROPOSED:
            break
        PROPOSED.add(words)
        sweeps = words[0] in ("sweep", "ablate", "demo", "search") or words[:2] == ("recommend", "--model")
        named = not sweeps or {"--out", "--name"} & {*words}
        code = app.run([*words, *([] if named else ["--name", f"run{[*EXAMPLES].index(first)}-{number}"])])
        said = capsys.readouterr()
        assert code in (0, 3, 4), said.out + said.err
        if (following := next_command(said.out)) is None:
            break
        words = tuple(stand_in(following))


def next_command(screen: str) -> str | None:
    """The command below the "next:" of a screen, with what a reader puts for its capitals."""
    found = re.search(r"^next:\n((?:.*\\\n)*.*)$", screen, flags=re.MULTILINE)
    if found is None:
        return None
    line = found[1].replace("\\\n", " ")
    own_names = {
        "FILE": "w.safetensors",
        "NEW": f"new{abs(hash(screen))}",
        "LABELLED": "my_pictures",
        "MORE_IMAGES": "DIR",
    }
    if "hf/my_" in line:
        own_names |= {"DATA": "my_pictures", "MORE_IMAGES": "my_pictures"}
    for capitals, own in own_names.items():
        line = re.sub(rf"(?<= ){capitals}\b", own, line)
    return line


def test_the_command_after_next_is_found() -> None:
    assert next_command("a\n") is None
    screen = "a\nnext:\n  tomebench sweep \\\n    --checkpoint FILE --data DIR\nb:\n"
    assert (next_command(screen) or "").split() == shlex.split("tomebench sweep --checkpoint w.safetensors --data DIR")


@pytest.mark.filterwarnings("ignore:.* would not show a loss to be within")
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
        'transformers.AutoModel.from_pretrained("facebook/dinov2-base")': "build_own([])",
    }
    names = {"images": torch.randn(2, 3, 160, 160), "build_own": build_own}
    for block in blocks:
        for old, new in stand_ins.items():
            block = block.replace(old, new)
        exec(block, names)
    assert torch.equal(names["logits"], names["merged"](names["images"]))
    assert len(names["table"]) == 3
    assert names["states"].shape == (2, 101, 12)
