"""``tomebench ablate``: the ToMe paper's ablation of the method's options, on any model and images."""

from __future__ import annotations

import dataclasses
from functools import partial

from tomebench.cli.launch import LaunchFlags
from tomebench.cli.options import takes_sweep_flags
from tomebench.cli.sweep import finish, measure


@partial(takes_sweep_flags, defaults=False, flags=LaunchFlags)
def ablate(flags: LaunchFlags) -> None:
    """What each option of the method is worth, as in Table 1.

    Example: tomebench ablate

    Example: tomebench ablate --model vit_l_16 --data imagenet/val --r 8 --budget none

    Every option is changed alone, from the paper's default, and compared with it on the same images. It is "tomebench
    sweep --ablate" with a table for each option. Without --model it is the embedded model on the embedded images (the
    packaged configuration ablate.yaml); with one, r is 8 unless --r or --config says otherwise.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.results import tell
    from tomebench.paper.ablation import sub_tables
    from tomebench.report.ablation import NARROWER, answer, sub_table
    from tomebench.report.headline import sentence
    from tomebench.runs.store import Store
    from tomebench.sweeps.config_files import packaged_config

    model = flags.given["model"]
    own = () if model or flags.config else (packaged_config("ablate"),)
    r = flags.given["r"] or ("8" if model and not flags.config else None)
    flags = dataclasses.replace(flags, given={**flags.given, "ablate": True, "r": r})
    measured = measure(flags.load(*own), flags)
    if measured is None:
        return
    finished, context = measured
    with Store.read(finished.directory) as store:
        tables = sub_tables(store)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    if screen.as_json:
        found = [
            {
                "title": table.title,
                "option": table.option,
                "r": table.r,
                "values": [
                    {
                        "value": entry.value,
                        "default": entry.default,
                        "top1": entry.row.top1,
                        "img_per_s": entry.row.img_per_s,
                        "delta": entry.delta and dataclasses.asdict(entry.delta),
                    }
                    for entry in table.entries
                ],
            }
            for table in tables
        ]
        screen.object({**dataclasses.asdict(context), "tables": found})
    else:
        several = len({table.r for table in tables}) > 1
        values = [[(each.value, each.default, each.row, each.delta) for each in table.entries] for table in tables]
        named = [
            (f"{value} at r = {table.r}" if several else value, default, row, delta)
            for table, entries in zip(tables, values, strict=True)
            for value, default, row, delta in entries
        ]
        if said := answer(named) or sentence(finished.rows):
            screen.line()
            screen.line(said, style="bold")
        lost = []
        for table, entries in zip(tables, values, strict=True):
            screen.line()
            screen.line(f"{table.title}, r = {table.r}")
            lost += screen.table(*sub_table(table.option, entries), left=[table.option], steps=NARROWER)
        screen.line()
        screen.line("* the default, with which the others are compared on the same images")
        tell(screen, finished.rows, dataclasses.replace(context, paths=()), lost)
        screen.line(f"written to {finished.directory}", whole=[str(finished.directory)])
    finish(finished)
