"""Shares of a plan, for many machines: whole runs, or parts of the values of r where there are fewer runs than shares.

Every part has r = 0 of its own in the same rounds, so that no ratio spans two machines. Each run of a share remembers
the plan, so that the shares can be joined, and what is missing named.
"""

from __future__ import annotations

from collections.abc import Sequence

from tomebench.errors import ConfigError
from tomebench.runs.plan_shares import SHARE, PlanShare
from tomebench.schema import fingerprint
from tomebench.sweeps.config import SweepConfig, run_directory
from tomebench.sweeps.config_files import Member
from tomebench.sweeps.events import Facts


def units(members: Sequence[Member]) -> list[Member]:
    """All runs of a plan that is shared: its members, each in as many parts as make at least one run for each share.

    Raises:
        ConfigError: the members are parts already.
    """
    share = members[0].config.share
    if share is None:
        return [*members]
    if members[0].config.cells is not None:
        raise ConfigError("cells and share both deal out a sweep; drop --cells")
    parts = -(-int(share.partition("/")[2]) // len(members))
    if parts == 1:
        return [member._replace(name=member.name or "run") for member in members]
    return [_part(member, f"{part}/{parts}") for member in members for part in range(1, parts + 1)]


def _part(member: Member, cells: str) -> Member:
    """One part of a run, with r = 0 of its model as the common reference of all parts."""
    config, changed = member.config, {"cells": cells}
    if config.reference is None and config.budget != "none":
        changed["reference"] = config.model + ("" if config.img_size is None else f"@{config.img_size}")
    name = "-".join(filter(None, [member.name, f"cells-{cells.replace('/', '-of-')}"]))
    return Member(name, config.model_copy(update=changed))


def own_share(members: Sequence[Member]) -> list[Member]:
    """The runs of this share of a plan; all where it is not shared."""
    share = members[0].config.share
    if share is None:
        return [*members]
    number, of = map(int, share.split("/"))
    return units(members)[number - 1 :: of]


def plan_share(members: Sequence[Member]) -> PlanShare | None:
    """The plan that a share is of, as each of its runs remembers it; None where it is not shared."""
    share = members[0].config.share
    if share is None:
        return None
    all_ = units(members)
    digest = fingerprint([[each.name, each.config.stored()] for each in all_])
    return PlanShare(share, digest, tuple(each.name for each in all_))


def alone(members: Sequence[Member]) -> tuple[SweepConfig, Facts] | None:
    """The run that a share consists of, in its folder below that of the plan, and its facts; None if there are several.

    Processes that share a run need a folder that each of them knows.
    """
    plan, own = plan_share(members), own_share(members)
    if len(own) != 1:
        return None
    (member,) = own
    models = ",".join(dict.fromkeys(each.config.model for each in members))
    parent = run_directory(members[0].config, models)
    return member.config.model_copy(update={"out": parent / member.name}), facts_of(plan, member.name)


def facts_of(plan: PlanShare | None, name: str) -> Facts:
    """Names and values that a run of that name stores of the plan that it is a part of; none where there is none."""
    return [] if plan is None else [(SHARE, plan.to_json(name))]
