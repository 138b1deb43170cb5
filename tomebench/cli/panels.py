"""The help of a sweeping command: its options in panels, of which ``--help`` shows what is used often.

The panels are plain sections: the boxes that typer would draw take twice the lines, and importing rich takes time.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

PANELS = {
    "Model": ("model checkpoint class_names img_size", "use_ema num_classes preprocessing offline seed"),
    "Method": (
        "r schedule method prop_attn",
        "option ablate metric heads distance combine partition matching attention prefix_only",
    ),
    "Data": ("data labels limit cache", "real allow_missing verify workers"),
    "Timing": ("device dtype batch_size budget processes mode compile ceiling", "cuda_graphs end_to_end threads"),
    "Output": ("max_drop config out name json details quiet", "traceback"),
    "Several processes": (
        "nproc_per_node",
        "cells nnodes rdzv_backend rdzv_endpoint rdzv_id node_rank master_addr master_port max_restarts standalone",
    ),
}
"""Panel to its flags: those that ``--help`` shows, and those that it leaves to ``--help-all``."""
_PLACES = {
    name: (panel, not often)
    for panel, (shown, hidden) in PANELS.items()
    for often, names in ((True, shown), (False, hidden))
    for name in names.split()
}
_LAST = "Help"


def in_panel(name: str, hint: Any) -> Any:
    """The annotation of a flag with its panel, hidden where ``--help`` leaves it out; others are as they were."""
    if name not in _PLACES:
        return hint
    options = [copy.copy(item) for item in hint.__metadata__]
    for option in options:
        option.rich_help_panel, option.hidden = _PLACES[name]
    return Annotated[(get_args(hint)[0], *options)]


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for param in context.command.params:
            param.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        help="Show the less used options, too.",
        callback=_show_all,
        is_eager=True,
        rich_help_panel=_LAST,
    ),
]


class PanelCommand(TyperCommand):
    """A command whose help has a section for each panel, in the order of :data:`PANELS`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections: arguments, the command's own options, the panels, help."""
        order = ["Arguments", "Options", *PANELS, _LAST]
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in order}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                sections[self._section(param)].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _section(self, param: Any) -> str:
        if param.param_type_name == "argument":
            return "Arguments"
        return _LAST if param.name == "help" else getattr(param, "rich_help_panel", None) or "Options"
