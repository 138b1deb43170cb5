"""Which of timm's transformers can be merged, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tomebench.errors import ModelError, SpecError
from tomebench.words import counted


class Architecture(NamedTuple):
    """One of timm's transformers."""

    name: str
    family: str  # timm's module
    weights: int  # published weights
    why: str  # why it cannot be merged; "" if it can


def architectures(pattern: str = "") -> Iterator[Architecture]:
    """All transformers of timm with ``pattern`` in their name, each built without storage to see its parts."""
    import timm

    from tomebench.models.families import FAMILIES

    published = Counter(name.partition(".")[0] for name in timm.list_pretrained())
    for family, needs in FAMILIES.items():
        for name in timm.list_models(module=family):
            if pattern in name:
                yield Architecture(name, family, published[name], needs or _refused(name))


def _refused(name: str) -> str:
    """Why an architecture of a family with an adapter is refused; "" if it is not."""
    from tomebench.backbones.adapt import adapt
    from tomebench.models.create import build_model

    try:
        adapt(build_model(name, meta=True).model)
    except ModelError as error:
        return str(error).partition(", which token merging")[0].removeprefix(f"model {name} ")
    return ""


def by_family(found: Sequence[Architecture]) -> list[tuple[str, str, str, str]]:
    """Rows of the table by family: name, architectures and weights that can be merged of all, why others cannot."""
    rows = []
    for family in dict.fromkeys(each.family for each in found):
        own = [each for each in found if each.family == family]
        merged = [each for each in own if not each.why]
        why = "; ".join(dict.fromkeys(each.why for each in own if each.why))
        weights = [sum(each.weights for each in some) for some in (merged, own)]
        rows.append((family, f"{len(merged)} of {len(own)}", f"{weights[0]} of {weights[1]}", why))
    return rows


def of_timm(pattern: str | None) -> tuple[Sequence[str], Sequence[Sequence[str]], Sequence[str]]:
    """Headers, rows and last lines of ``list models --all``: by family, or with a pattern each architecture."""
    found = [*architectures(pattern or "")]
    if not found:
        raise SpecError(f"timm has no transformer with {pattern!r} in its name")
    merged = [each for each in found if not each.why]
    weights = [sum(each.weights for each in some) for some in (merged, found)]
    last = [
        f"{len(merged)} of {counted(len(found), 'architecture')} can be merged, {weights[0]} of {weights[1]} weights"
    ]
    if pattern is not None:
        rows = [(each.name, each.family, str(each.weights), each.why or "yes") for each in found]
        return ("name", "family", "weights", "merged"), rows, last
    headers = ("family", "architectures", "weights", "why not, or what would have to be built")
    from tomebench.backbones.adapt import HF_CLASSES

    kinds = ", ".join(HF_CLASSES)
    more = "each of them: tomebench list models --all NAME"
    return headers, by_family(found), [*last, more, f"of transformers, by --model hf/FOLDER or hf/ORG/NAME: {kinds}"]
