"""Help of the sweeping commands: options in panels (sections); ``--help`` shows often used ones, ``--help-all`` all.

The panels are plain sections: the boxes that typer would draw take twice the lines, and importing rich takes time.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from tomebench.runs.facets import Panel

_LAST = "Help"


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
    """A command whose help has a section for each panel, in the order of :data:`~tomebench.runs.facets.Panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help: arguments, the command's own options, the panels, help."""
        order = ["Arguments", "Options", *get_args(Panel), _LAST]
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
