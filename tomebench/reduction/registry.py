"""Registry of reduction methods by name. An entry is data; its code is imported when it is used.

To add a method:

1. Write ``tomebench/reduction/methods/NAME.py``: a frozen dataclass on :class:`tomebench.reduction.method.Method` whose
   fields are its options, with ``choose``, ``cost``, ``cap`` and ``source``.
2. Add a line to ``METHODS``.
   A package of its own adds it by an entry point instead, see :mod:`tomebench.reduction.added`.
3. Compare it with a reference of Python loops in ``tests/reduction``; the tests of the registry find it by themselves.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module

from tomebench.entries import by_name
from tomebench.errors import SpecError
from tomebench.reduction.added import added_methods, code_of
from tomebench.reduction.choices import check_declared
from tomebench.reduction.method import Method


@dataclass(frozen=True)
class MethodInfo:
    """Name, import path and description of a method, as ``tomebench list methods`` shows it."""

    name: str
    target: str  # "module:class"
    doc: str


_METHODS = "tomebench.reduction.methods"
METHODS: Mapping[str, MethodInfo] = by_name(
    (
        MethodInfo(
            "tome",
            f"{_METHODS}.tome:Tome",
            "Token Merging: bipartite soft matching on attention keys (Bolya et al., ICLR 2023)",
        ),
        MethodInfo(
            "tome-drop",
            f"{_METHODS}.tome_drop:TomeDrop",
            "the matching of tome; what it would merge away is dropped",
        ),
        MethodInfo(
            "random-merge",
            f"{_METHODS}.random_merge:RandomMerge",
            "tokens at random are merged into others at random, the same ones in every image",
        ),
        MethodInfo(
            "random-prune",
            f"{_METHODS}.pruning:RandomPruning",
            "patches at random are dropped, the same ones in every image",
        ),
        MethodInfo(
            "attention-prune",
            f"{_METHODS}.pruning:AttentionPruning",
            "the patches that the class token attends to least are dropped",
        ),
        MethodInfo(
            "topk",
            f"{_METHODS}.topk:Topk",
            "the patches that the class token attends to most are kept (the pruning of EViT; Liang et al., ICLR 2022)",
        ),
        MethodInfo(
            "evit",
            f"{_METHODS}.evit:Evit",
            "the same are kept, and the others fused into one token (EViT; Liang et al., ICLR 2022)",
        ),
        MethodInfo(
            "diffrate",
            f"{_METHODS}.diffrate:Diffrate",
            "of what the class token attends to least some is dropped, some merged (DiffRate; Chen et al., ICCV 2023)",
        ),
        MethodInfo(
            "pitome",
            f"{_METHODS}.pitome:Pitome",
            "tokens that resemble many others are merged (PiToMe; Tran et al., NeurIPS 2024)",
        ),
        MethodInfo(
            "mctf",
            f"{_METHODS}.mctf:Mctf",
            "matching in both directions by similarity, attention and size (MCTF; Lee et al., CVPR 2024)",
        ),
        MethodInfo(
            "representation-shift",
            f"{_METHODS}.representation_shift:RepresentationShift",
            "the patches that the MLP changes least are dropped (Choi et al., ICCV 2025)",
        ),
        MethodInfo(
            "tofu",
            f"{_METHODS}.tofu:Tofu",
            "the matching of tome; sources are dropped in the first blocks and merged later (Kim et al., WACV 2024)",
        ),
        MethodInfo(
            "dpc-knn",
            f"{_METHODS}.dpc_knn:DpcKnn",
            "dense patches far from denser ones become the centres of clusters (TCFormer; Zeng et al., CVPR 2022)",
        ),
        MethodInfo(
            "kmeans",
            f"{_METHODS}.kmeans:Kmeans",
            "k-means of keys weighted by received attention, as in the ablation of ToMe",
        ),
        MethodInfo(
            "token-pooling",
            f"{_METHODS}.token_pooling:TokenPooling",
            "k-means of tokens weighted by the attention that they receive (Token Pooling; Marin et al., WACV 2023)",
        ),
        MethodInfo(
            "kmedoids",
            f"{_METHODS}.kmedoids:Kmedoids",
            "k-medoids weighted by the attention that tokens receive (Token Pooling; Marin et al., WACV 2023)",
        ),
        MethodInfo(
            "graph-cut",
            f"{_METHODS}.graph_cut:GraphCut",
            "normalised spectral cut of the graph of similar patches (Ng et al., NIPS 2001)",
        ),
        MethodInfo(
            "atc",
            f"{_METHODS}.atc:Atc",
            "agglomerative clustering: the most similar clusters are joined (Haurum et al., ECCV 2024)",
        ),
        MethodInfo(
            "greedy",
            f"{_METHODS}.greedy:Greedy",
            "the most similar pair of all patches, one after the other (Bolya et al., ICLR 2023)",
        ),
        MethodInfo(
            "zero-tprune",
            f"{_METHODS}.zero_tprune:ZeroTPrune",
            "patches of low PageRank in attention, then ones like others, are dropped (Wang et al., CVPR 2024)",
        ),
        MethodInfo(
            "ats",
            f"{_METHODS}.ats:Ats",
            "samples patches by attention · length of values; how many stay depends on the image (ATS, ECCV 2022)",
        ),
        MethodInfo(
            "dynamicvit",
            f"{_METHODS}.dynamicvit:DynamicViT",
            "trained: patches go by predictors, see train-predictors (DynamicViT; Rao et al., NeurIPS 2021)",
        ),
    ),
    lambda info: info.name,
)


def methods() -> dict[str, MethodInfo]:
    """Every method by its name: those of this package, then those that other installed packages add."""
    added = [MethodInfo(each.name, each.target, f"added by {each.package}") for each in added_methods()]
    return {**METHODS, **{info.name: info for info in added if info.name not in METHODS}}


def added_code(names: Iterable[str]) -> dict[str, str]:
    """The digest of the code of those of the methods that other packages add, as facts by ``method NAME``."""
    return {f"method {each.name}": code_of(each.target) for each in added_methods() if each.name in {*names}}


def method_class(name: str) -> type[Method]:
    """Import the class of a method, whose dataclass fields are its options.

    Raises:
        SpecError: no such method (the message names the nearest one), two of that name, or it cannot be used.
    """
    known = methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
        raise SpecError(f"unknown method {name!r}; {hint}")
    owners = [each.package for each in added_methods() if each.name == name]
    if len(owners) + (name in METHODS) > 1:
        raise SpecError(
            f"method {name} is added by {' and '.join(owners)}{' and is of tomebench' * (name in METHODS)}; uninstall "
            "one of them"
        )
    target = known[name].target
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever it does when it is imported
        raise SpecError(f"method {name} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, Method) or not _is_frozen_dataclass(found):
        raise SpecError(f"method {name}: {target} is no frozen dataclass on Method")
    try:
        check_declared(found)
    except SpecError as error:
        raise SpecError(f"method {name}: {error}") from error
    if lacking := [what for what in (*sorted(found.__abstractmethods__), "source") if not _declares(found, what)]:
        raise SpecError(f"method {name} declares no {lacking[0]}, without which it cannot be used")
    return found


def get_method(name: str, options: Mapping[str, object] | None = None) -> Method:
    """Build a method by its name.

    Args:
        name: see ``METHODS``.
        options: values of those of its options that are not the default.

    Raises:
        SpecError: no such method, option or value.
    """
    kind, given = method_class(name), dict(options or {})
    if unknown := [option for option in given if option not in option_names(kind)]:
        raise SpecError(f"method {name} has no {unknown[0]}; leave {unknown[0]} out")
    return kind(**given)


def option_names(kind: type[Method]) -> tuple[str, ...]:
    """Names of the options of a method."""
    return tuple(option_defaults(kind))


def option_defaults(kind: type[Method]) -> dict[str, object]:
    """Names and defaults of the options of a method, which is a dataclass."""
    return {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]


def _is_frozen_dataclass(kind: type) -> bool:
    """Whether the class itself, and not only a base of it, is a frozen dataclass."""
    params = vars(kind).get("__dataclass_params__")
    return params is not None and bool(params.frozen)


def _declares(kind: type[Method], name: str) -> bool:
    found = inspect.getattr_static(kind, name, None)
    return found is not None and not getattr(found, "__isabstractmethod__", False)
