"""The flags of all commands, each defined once; SweepFlags passes all of a sweep's to a command as one argument.

The flags of a sweep are its settings (:mod:`tomebench.runs.settings`) with the help text there. Their values are
checked later, together with those from YAML, so here choices are plain text and "not given" is always ``None``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args, get_origin, get_type_hints

import typer

from tomebench.cli.panels import HelpAll
from tomebench.reduction.schedule import lists_every_r
from tomebench.runs.facets import Panel
from tomebench.runs.settings import default, flag, hints, settings

if TYPE_CHECKING:
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.config_files import Member


def setting(name: str, *, in_panel: bool = False, defaults: bool = True, seldom: Collection[str] = ()) -> Any:
    """Make the command-line option of a setting.

    Args:
        name: of the setting.
        in_panel: show it in its panel of the help, as in the sweeping commands.
        defaults: show the default in the help.
        seldom: panels of which a command makes little use, shown by --help-all only.
    """
    declared = settings()[name]
    flags = flag(name) if declared.one_way or _type(name) != bool | None else f"{flag(name)}/{flag(name, False)}"
    return _option(
        flags,
        declared.help,
        declared.metavar,
        _default(name) if defaults else None,
        panel=declared.panel if in_panel else None,
        often=(declared.often and declared.panel not in seldom) or not in_panel,
    )


def _option(
    flags: str,
    help: str,
    metavar: str | None = None,
    default: str | None = None,
    *,
    panel: Panel | None = None,
    often: bool = True,
) -> Any:
    """Make an option whose value is None if not given; ``default`` is only shown in the help."""
    shown = f"{help} [default: {default}]" if default else help
    return typer.Option(flags, help=shown, metavar=metavar, show_default=False, rich_help_panel=panel, hidden=not often)


def _default(name: str) -> str:
    """Text of a setting's default for the help; empty where none is shown."""
    if (shown := settings()[name].shown) is not None:
        return shown
    match usual := default(name):
        case None:
            return ""
        case True | False:
            return flag(name).removeprefix("--") if usual else "off"
        case float():
            return f"{usual:g}"
    return str(usual)


def _type(name: str) -> Any:
    """Type by which typer parses the flag of a setting; ``str`` where only the configuration can parse it."""
    if settings()[name].repeated:
        return list[str] | None
    if settings()[name].axis:
        return str | None
    hint = hints()[name]
    kinds = {*(get_args(hint) if get_origin(hint) is UnionType else (hint,))} - {NoneType}
    kind = kinds.pop()
    return (kind if not kinds and kind in (bool, int, float, Path) else str) | None


_output = functools.partial(_option, panel="Output")
_processes = functools.partial(_option, panel="Several processes", often=False)

Config = Annotated[
    list[Path] | None,
    _output("--config", "YAML file with settings named like these flags; repeat it to merge, later wins.", "FILE"),
]
Json = Annotated[bool, _output("--json", "Print one JSON object instead of a table.")]
Details = Annotated[bool, _output("--details", "Show all columns, warnings and conditions.")]
Quiet = Annotated[bool, _output("--quiet", "No progress on stderr: errors and the result only.")]
Traceback = Annotated[bool, _option("--traceback", "Show where in the code an error came from.")]
Manifest = Annotated[Path | None, _option("--manifest", "Write a manifest of sha256 checksums.", "FILE")]
Decode = Annotated[bool, _option("--decode", "Decode every image, which takes minutes.")]
NprocPerNode = Annotated[
    str | None,
    _option(
        "--nproc-per-node",
        "Share the images among processes: a number, auto, gpu or cpu.",
        "N",
        panel="Several processes",
    ),
]
Nnodes = Annotated[str | None, _processes("--nnodes", "Machines, or MIN:MAX of them.", "N", "1")]
RdzvBackend = Annotated[str | None, _processes("--rdzv-backend", "How machines meet: c10d, static.", "NAME", "static")]
RdzvEndpoint = Annotated[str | None, _processes("--rdzv-endpoint", "Where they meet.", "HOST:PORT")]
RdzvId = Annotated[str | None, _processes("--rdzv-id", "Name of the job, the same on all machines.", "NAME")]
NodeRank = Annotated[int | None, _processes("--node-rank", "Which machine this is, if they meet statically.", "N", "0")]
MasterAddr = Annotated[str | None, _processes("--master-addr", "Machine of rank 0, if they meet statically.", "HOST")]
MasterPort = Annotated[int | None, _processes("--master-port", "Its port.", "PORT", "29500")]
MaxRestarts = Annotated[int | None, _processes("--max-restarts", "Start all again up to N times.", "N", "0")]
Standalone = Annotated[
    bool,
    _processes("--standalone", "One machine, on a free port; the default where nothing above says another place."),
]


@dataclass(frozen=True)
class SweepFlags:
    """Flags given to a sweeping command: settings, and those that all such commands share."""

    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings by name; None where a flag was not given."""
    config: Config = None
    json: Json = False
    details: Details = False
    quiet: Quiet = False
    traceback: Annotated[bool, _output("--traceback", "Show where in the code an error came from.", often=False)] = (
        False
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The flags of a command line.

        Args:
            values: the value of every parameter by its name.
        """
        given = {name: value for name, value in values.items() if name in settings()}
        return cls(given, **{name: value for name, value in values.items() if name not in given})

    def load(self, *first: Path) -> SweepConfig:
        """Load the configuration: the files ``first``, then those of ``--config``, then the flags; later ones win.

        Raises:
            InputError: a file or a value that cannot be used.
        """
        from tomebench.sweeps.config_files import load_config

        return load_config([*first, *(self.config or [])], self._asked)

    def load_with_r(self, r: str) -> SweepConfig:
        """Load the configuration, with values of r of the command's own unless a flag, a file or the schedule sets r.

        Raises:
            InputError: as :meth:`load`.
        """
        config = self.load()
        if "r" in config.model_fields_set or lists_every_r(config.schedule):
            return config
        return config.model_copy(update={"r": r})

    def load_members(self) -> list[Member]:
        """Load the configuration of every run that the flags ask for: several where models or sizes are lists.

        Raises:
            InputError: as :meth:`load`.
        """
        from tomebench.sweeps.config_files import load_members

        return load_members(self.config or [], self._asked)

    @property
    def _asked(self) -> dict[str, Any]:
        return {name: None if value == [] else value for name, value in self.given.items()}


_HELP_ALL = "help_all"


def takes_sweep_flags(
    command: Callable[[Any], None],
    *,
    defaults: bool = True,
    flags: type[SweepFlags] = SweepFlags,
    seldom: Collection[str] = (),
) -> Callable[..., None]:
    """Wrap a command that takes one :class:`SweepFlags`, so that typer sees a parameter for every flag.

    Args:
        command: function to wrap.
        defaults: show the defaults of sweep in its help.
        flags: SweepFlags, or a subclass with the command's own flags.
        seldom: panels of which the command makes little use, shown by --help-all only.
    """
    own = get_type_hints(flags, include_extras=True)
    others = {each.name: (own[each.name], each.default) for each in dataclasses.fields(flags) if each.name != "given"}
    found = {
        name: (Annotated[_type(name), setting(name, in_panel=True, defaults=defaults, seldom=seldom)], None)
        for name in settings()
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for name, (hint, default) in {**found, **others, _HELP_ALL: (HelpAll, False)}.items()
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        del values[_HELP_ALL]
        command(flags.of(values))

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__  # typer would read the hints of the command itself
    return wrapper
