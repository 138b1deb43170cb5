"""Checks of a data set for ``tomebench doctor``: classes, counts, readability, sizes, checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomebench.errors import TomebenchError
from tomebench.words import are, counted

if TYPE_CHECKING:
    from tomebench.datasets.classes import ClassHead
    from tomebench.datasets.images import ImageSet
    from tomebench.models.spec import ModelSpec

_SHOWN = 5
_LISTED = 20
_SAMPLE = 64


@dataclass(frozen=True)
class Check:
    """Result of one check. ``fail``: something that was asked for, or that is indispensable, is not there."""

    what: str
    state: Literal["ok", "warn", "fail"]
    text: str


def data_findings(
    spec: str,
    model: ModelSpec | None,
    *,
    real: Path | None = None,
    verify: Path | None = None,
    manifest: Path | None = None,
    decode: bool = False,
    offline: bool = False,
) -> Iterator[Check]:
    """Check the images that ``--data`` names.

    Args:
        spec: value of ``--data``.
        model: model whose class head must fit; None: report which class heads fit.
        real: file of ReaL labels.
        verify: manifest of checksums to compare with.
        manifest: where to write one.
        decode: decode every image.
        offline: never use the network.
    """
    from tomebench.datasets.classes import ANY_HEAD
    from tomebench.datasets.images import open_dataset, open_tolerant
    from tomebench.models.create import build_model

    head: ClassHead | None = ANY_HEAD
    if model is not None:
        with suppress(TomebenchError):  # reported by the check of the model
            head = build_model(model, meta=True).head
    try:
        images = open_dataset(spec, head=head, offline=offline)
    except TomebenchError as error:
        yield Check("data", "fail", str(error))
        head = None
        try:  # once more without the unknown class folders, to check the others
            images = open_tolerant(spec)
        except TomebenchError:
            return
    else:
        note = f"; {images.info.note}" if images.info.note else ""
        yield Check("data", "ok", f"{images.info.name}{note}")
    if real is not None:
        yield _real(images, real)
    yield _head(head, images)
    yield _classes(images)
    yield _counts(images, 10 if spec.startswith("imagenetv2/") else 50)
    if images.extra:
        yield Check("extra", "warn", f"{len(images.extra)} not used: {_few(images.extra)}; move out what is not meant")
    looked = list(_readable(images, decode))
    if verify is not None:
        looked += _verified(images, verify)
    yield from looked
    if manifest is not None:
        if any(finding.state == "fail" for finding in looked):
            # A manifest must not list damaged images as good.
            yield Check("manifest", "fail", "not written, since not all images are as they should be")
        else:
            yield _written(images, manifest)


def _real(images: ImageSet, path: Path) -> Check:
    from tomebench.datasets.real import real_labels

    try:
        kept, info = real_labels(images.info, images.names, path)
    except TomebenchError as error:
        return Check("real", "fail", str(error))
    several = int((info.labels >= 0).sum(axis=1).max())
    return Check("real", "ok", f"labels for {len(kept)} of {counted(len(images), 'image')}, up to {several} for one")


def _head(head: ClassHead | None, images: ImageSet) -> Check:
    """Check that the class head of the model fits the classes; without a model, say which class heads do."""
    from tomebench.datasets.classes import ANY_HEAD, wnids
    from tomebench.measure.predict import require_matching_head

    names, total = images.info.class_names, images.info.num_classes
    if head is not None and head != ANY_HEAD:
        try:
            require_matching_head(head.num_classes, images.info)
        except TomebenchError as error:
            return Check("head", "fail", str(error))
        return Check("head", "ok", f"{total} classes, as the model has")
    text = f"fits models with {total} classes"
    if names == wnids():
        return Check("head", "ok", f"{text}, those of ImageNet-1k in order of their ids")
    if not names:
        return Check("head", "ok", text)
    from timm.utils.misc import natural_key

    agree = sorted(names) == sorted(names, key=natural_key)
    order = (
        "else folder names sorted as ImageFolder and timm do"
        if agree
        else ("else --class-names sorted (as ImageFolder) or natural (as timm)")
    )
    return Check("head", "ok", f"{text}: in the order of the model's own list of names ({_few(names)}), {order}")


def _classes(images: ImageSet) -> Check:
    there, total, names = set(images.info.labels.tolist()), images.info.num_classes, images.info.class_names
    text = f"{len(there)} of {total}"
    missing = [number for number in range(total) if number not in there]
    if not missing:
        return Check("classes", "ok", text)
    shown = [names[number] if names else str(number) for number in missing]
    return Check("classes", "warn", f"{text}; missing {_few(shown)}: add them, or the result is of a part only")


def _counts(images: ImageSet, each: int) -> Check:
    from tomebench.datasets.classes import NUM_CLASSES

    per_class = Counter(images.info.labels.tolist()).values()
    least, most = min(per_class), max(per_class)
    text = f"{len(images)}, {least if least == most else f'{least} to {most}'} per class"
    if images.info.num_classes != NUM_CLASSES or (least, most, len(images)) == (each, each, each * NUM_CLASSES):
        return Check("images", "ok", text)
    whole = f"{each * NUM_CLASSES}, {each} per class"
    return Check("images", "warn", f"{text}; the whole set has {whole}: fetch what is missing, or the result differs")


def _readable(images: ImageSet, decode: bool) -> Iterator[Check]:
    from tomebench.datasets.checks import find_unreadable

    if images.problem is not None:
        found = find_unreadable(images, range(len(images)), decode=decode)
        looked = "every image decoded" if decode else "first and last bytes looked at; --decode decodes every image"
        if found:
            text = f"{len(found)} of {len(images)}: {_few(list(found.values()), _LISTED)}"
            ways = f"replace them, or leave them out with --allow-missing {len(found)}"
            yield Check("unreadable", "fail", f"{text}; {ways}")
        else:
            yield Check("unreadable", "ok", f"none ({looked})")
    else:
        found = {}
    yield _sizes(images, [index for index in range(len(images)) if index not in found])


def _sizes(images: ImageSet, good: Sequence[int]) -> Check:
    """Pixels and bytes of a sample of the images: opening every file would take minutes."""
    sample = [good[i * len(good) // _SAMPLE] for i in range(_SAMPLE)] if len(good) > _SAMPLE else good
    sizes, total = set(), 0
    for index in sample:
        try:
            sizes.add(images.open(index).size)
            total += len(images.read(index)) if images.read else 0
        except (TomebenchError, OSError):
            continue  # damaged in the middle, which --decode reports
    if not sizes:
        return Check("sizes", "warn", "no image could be opened")
    widths, heights = zip(*sizes, strict=True)
    text = f"{min(widths)} to {max(widths)} x {min(heights)} to {max(heights)} pixels"
    about = f", about {total / len(sample) * len(good) / 1e6:.1f} MB in all" if total else ""
    return Check("sizes", "ok", f"{text}{about} (from {counted(len(sample), 'image')})")


def _verified(images: ImageSet, manifest: Path) -> Iterator[Check]:
    from tomebench.datasets.checks import compare_with_manifest

    try:
        mismatch = compare_with_manifest(images, manifest)
    except TomebenchError as error:
        yield Check("checksums", "fail", str(error))
        return
    changed, missing, unlisted = list(mismatch.changed.values()), mismatch.missing, list(mismatch.unlisted.values())
    if changed:
        yield Check("changed", "fail", f"{len(changed)}: {_few(changed, _LISTED)}; fetch them again")
    if missing:
        yield Check("missing", "fail", f"{len(missing)}: {_few(missing, _LISTED)}; fetch them")
    if unlisted:
        yield Check("not listed", "fail", f"{len(unlisted)}: {_few(unlisted, _LISTED)}; move them out")
    if not (changed or missing or unlisted):
        yield Check(
            "checksums",
            "ok",
            f"all {counted(len(images), 'image')} {are(len(images))} as the manifest says",
        )


def _written(images: ImageSet, manifest: Path) -> Check:
    from tomebench.datasets.checks import checksums
    from tomebench.datasets.manifest import write_manifest

    try:
        found = dict(zip(images.paths, checksums(images), strict=True))
        if lost := [name for name, checksum in found.items() if not checksum]:
            return Check("manifest", "fail", f"not written, since {len(lost)} cannot be read: {_few(lost)}")
        write_manifest(manifest, found)
    except TomebenchError as error:
        return Check("manifest", "fail", str(error))
    return Check("manifest", "ok", f"checksums of {counted(len(found), 'image')} written to {manifest}")


def _few(names: Sequence[str], shown: int = _SHOWN) -> str:
    from tomebench.datasets.classes import few

    return few(names, shown)
