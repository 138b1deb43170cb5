"""Members of a sweep over several models, input sizes, dtypes or batch sizes: one run for each combination.

Cells of one run share its rounds and its r = 0; those of two runs never do. Speeds of two runs are compared by way of
the reference, which is timed in every round of both (:mod:`tomebench.sweeps.reference`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from tomebench.errors import ConfigError
from tomebench.measure.device import resolve_device
from tomebench.models.create import LoadedModel, build_model
from tomebench.models.spec import ModelSpec
from tomebench.ranks.place import Place
from tomebench.reduction.attention import check_route
from tomebench.sweeps.cells import ResolvedCell, resolve_sweep
from tomebench.sweeps.config_files import Member
from tomebench.sweeps.inputs import list_images
from tomebench.sweeps.reference import Reference, resolve_reference

ALONE = (
    "several models, sizes, dtypes or batch sizes are runs one after another, which processes that share a sweep "
    "cannot do; start a sweep for each"
)
"""Error text: the runs of one sweep cannot be shared by ranks."""


class ResolvedMember(NamedTuple):
    """One run of a sweep, from shapes alone."""

    member: Member
    cells: list[ResolvedCell]
    images: int
    reference: Reference | None


def resolve_members(members: Sequence[Member], given: LoadedModel | None = None) -> list[ResolvedMember]:
    """The cells of every run; a model is built once for each size.

    Args:
        members: the runs.
        given: a model that was handed over in Python.

    Raises:
        InputError: one of them is none that can be measured.
    """

    @functools.cache
    def build(spec: ModelSpec) -> LoadedModel:
        return build_model(spec, meta=True)

    found = []
    for member in members:
        config = member.config
        model = given or build(config.model_spec)
        images = None if config.data is None else list_images(config, model.head)
        cells = resolve_sweep(config, images, model)
        found.append(
            ResolvedMember(member, cells, 0 if images is None else len(images), resolve_reference(config, model, build))
        )
    return found


def check_members(members: Sequence[Member], given: LoadedModel | None = None) -> None:
    """Refuse what one of the runs would refuse, before any of them has begun.

    Raises:
        InputError: one of them cannot be measured as asked, or other processes share this sweep.
    """
    if Place.here().size > 1:
        raise ConfigError(ALONE)
    for member in members:
        config = member.config
        device = resolve_device(config.device, config.dtype)
        check_route(config.attention, device, config.dtype, training=config.mode == "train")
    resolve_members(members, given)
