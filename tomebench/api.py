"""The public Python functions: ``tomebench.sweep``, ``apply``, ``advise``, ``check``, ``load_results``."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tomebench.backbones.apply import apply
from tomebench.measure.allocator import keep_memory

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from tomebench.gate.verdict import Finding
    from tomebench.models.create import LoadedModel
    from tomebench.report.headline import Answer
    from tomebench.runs.row import Row
    from tomebench.schema import Rope, Route
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.events import Finished

__all__ = ["advise", "apply", "check", "keep_memory", "load_results", "recommend", "sweep"]


def sweep(
    model: str | Sequence[str] | nn.Module,
    r: str | int | Sequence[int] = "0..24",
    *,
    out: str | Path,
    progress: bool = False,
    preprocessing: Literal["timm", "tome"] | Mapping[str, Any] | object | None = None,
    checkpoint: str | Path | None = None,
    use_ema: bool | None = None,
    num_classes: int | None = None,
    class_head: str | Path | None = None,
    class_names: str | Path | None = None,
    img_size: int | str | Sequence[int] | None = None,
    schedule: str | Sequence[str] | None = None,
    method: str | Sequence[str] | None = None,
    prop_attn: bool | None = None,
    metric: str | None = None,
    heads: str | None = None,
    distance: str | None = None,
    combine: str | None = None,
    partition: str | None = None,
    matching: str | None = None,
    option: str | Mapping[str, Any] | None = None,
    predictors: str | Path | None = None,
    ablate: bool | None = None,
    attention: Route | None = None,
    prefix_only: bool | None = None,
    rope: Rope | None = None,
    data: str | Path | None = None,
    labels: bool | None = None,
    limit: int | None = None,
    real: str | Path | None = None,
    allow_missing: int | None = None,
    verify: str | Path | None = None,
    device: str | None = None,
    dtype: str | Sequence[str] | None = None,
    batch_size: int | str | Sequence[int | str] | None = None,
    mode: Literal["infer", "train"] | None = None,
    compile: bool | None = None,
    cuda_graphs: bool | None = None,
    ceiling: bool | None = None,
    selector: bool | None = None,
    reference: str | None = None,
    end_to_end: bool | None = None,
    budget: Literal["quick", "standard", "publish", "none"] | None = None,
    processes: int | None = None,
    cells: str | None = None,
    share: str | None = None,
    name: str | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    min_speedup: float | None = None,
    max_latency_ms: float | None = None,
    until: Literal["decided", "recommended", "all"] | None = None,
    against: str | Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
    offline: bool | None = None,
) -> list[Row]:
    """Measure the speed of a model, and with ``data`` its top-1, when r tokens per layer are merged.

    Args:
        model: alias or timm id, ``hf-hub:ORG/NAME``, ``local-dir:PATH``, ``hf/FOLDER`` or ``hf/ORG/NAME``; or a ViT of
            timm or transformers itself, which is copied and stays as it is. Several names, in a list or with commas,
            are a run each; so are several of ``img_size``, ``dtype`` and ``batch_size``, in folders below ``out``.
        r: values of r, such as "0..24", "0..24:4", 8 or [0, 8, 16].
        out: run folder. A run in it is continued: with the same settings where it stopped; with another r, a larger
            budget or more options of the method, what is missing is measured.
        progress: draw a bar on stderr, or in a notebook.
        preprocessing: timm or tome; or for a module some of ``mean``, ``std``, ``interpolation``, ``crop_pct`` and
            ``crop_mode`` in place of what its ``pretrained_cfg`` says, or an image processor of transformers.
        data: images for top-1. Where no list names the classes of the model, their order is that of the sorted folder
            names, as in ImageFolder, and ``dataset`` of a row says so.

    All others are the flags of ``tomebench sweep``, explained by ``tomebench sweep --help-all``; None is the default.
    Reading more than a thousand images starts worker processes that import the caller's script again: call this under
    ``if __name__ == "__main__":``, or pass ``workers=0``. From the first call on, memory that is freed stays with the
    process (:mod:`tomebench.measure.allocator`).

    Notes that the command line would print are Python warnings, unless ``progress`` is on.

    Returns:
        One row per cell of the run, for :func:`advise`; none in a process of rank 1 and up under torchrun. The run
        folder holds the raw measurements, and the reports that the command line writes.

    Raises:
        TomebenchError: see :mod:`tomebench.errors`.
    """
    asked = {key: value for key, value in locals().items() if key not in ("model", "r", "progress", "preprocessing")}
    from tomebench.errors import ConfigError
    from tomebench.gate.race import boards_of
    from tomebench.models.given import given_model, given_name
    from tomebench.models.headed import with_class_head
    from tomebench.progress import drawn
    from tomebench.report.several import write_together
    from tomebench.rspec import text_of
    from tomebench.sweeps.config_files import load_members
    from tomebench.sweeps.events import Estimate, Finished, Note
    from tomebench.sweeps.members import check_members
    from tomebench.sweeps.resume import choose_parent
    from tomebench.sweeps.run import run_sweep
    from tomebench.sweeps.shares import facts_of, own_share, plan_share

    own = None if isinstance(preprocessing, str) else preprocessing
    module = None if isinstance(model, str | Sequence) else model
    asked |= {"model": model if module is None else given_name(module), "r": text_of(r)}
    asked |= {"preprocessing": None if own is not None else preprocessing}
    paths = ("out", "checkpoint", "class_head", "predictors", "real", "verify", "cache", "against")
    for path in (*paths, "class_names", "data"):
        if not isinstance(asked[path], str | Path | None) or (path == "out" and out is None):
            raise ConfigError(f"{path} {asked[path]!r}: give a path")
    for path in paths:
        asked[path] = None if asked[path] is None else Path(asked[path])
    asked |= {key: None if asked[key] is None else str(asked[key]) for key in ("class_names", "data")}
    asked |= {key: int(value) for key, value in asked.items() if _is_whole(value)}
    for key in ("img_size", "batch_size"):
        if isinstance(asked[key], list | tuple):
            asked[key] = [int(value) if _is_whole(value) else value for value in asked[key]]
    members = load_members([], asked)
    plan, members = plan_share(members), own_share(members)

    def handed_over() -> LoadedModel | None:
        if module is None:
            return None
        evaluated = asked["data"] is not None
        given = given_model(module, preprocessing=own, class_names=asked["class_names"], evaluated=evaluated)
        file = asked["class_head"]
        return given if file is None else with_class_head(given, file, evaluated=evaluated)

    given = None
    if module is not None:
        for key in ("checkpoint", "use_ema", "num_classes", "img_size"):
            if asked[key] is not None:
                raise ConfigError(f"{key} is about a model that is built by name; leave it out, the module has its own")
        given = handed_over()
    elif own is not None:
        raise ConfigError(
            "preprocessing as a mapping or image processor is for a module; of a named model say timm or tome"
        )
    folder = Path(out)
    if len(members) > 1 or plan is not None:
        check_members(members, given)
        folder = choose_parent(members)[0]
    rows: list[Row] = []
    for number, (part, config) in enumerate(members):
        model_here = handed_over() if number else given  # the run before has cast it to its own dtype
        facts, boards = facts_of(plan, part), boards_of(config)
        events = run_sweep(
            config, folder / part, should_stop=lambda: False, given=model_here, facts=facts, boards=boards
        )
        for event in drawn(events) if progress else events:
            if isinstance(event, Note) and not isinstance(event, Estimate) and not progress:
                warnings.warn(event.text, stacklevel=2)
            if isinstance(event, Finished):
                rows = list(event.rows)  # the generator must run to its end, for which other processes wait
                if rows:
                    _write_reports(event, config)
    return rows if len(members) == 1 else write_together(folder)[0]


def _write_reports(finished: Finished, config: SweepConfig) -> None:
    """Write table, rows, summary and figure of a run into its folder."""
    from tomebench.models.spec import PREFIX
    from tomebench.report.text import context_for
    from tomebench.report.write import write_reports
    from tomebench.sweeps.config import command_line

    settings = {**(finished.settings or config.stored()), "max_drop": finished.max_drop}
    context = context_for(
        finished.rows,
        f"tomebench {finished.directory.resolve().name}",
        command=None if config.model.startswith(PREFIX) else command_line(settings),
        max_drop=finished.max_drop,
        checkpoint=settings.get("checkpoint"),
    )
    write_reports(finished.directory, finished.rows, context)


def _is_whole(value: object) -> bool:
    """Whether a value is an integer of another library, such as numpy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, int)


def recommend(runs: str | Path | Sequence[str | Path], *, seed: int = 0, **limits: float) -> dict[str, Any]:
    """Choose a row of stored runs on one half of their images, and estimate it on the other.

    Args:
        runs: run folders, or folders of several.
        seed: of the halves, where the images of the runs are not in a random order.
        limits: ``max_drop``, ``min_agreement``, ``min_speedup`` or ``max_latency_ms``; by default as the runs asked.

    Returns:
        What ``tomebench recommend --json`` prints, such as ``sentence``, and ``recommended``, which may be None.

    Raises:
        TomebenchError: invalid limits, a folder without a run, or runs that cannot be compared.
    """
    from tomebench.compare import recommend as choice
    from tomebench.compare.read import read_runs
    from tomebench.report.recommended import as_json
    from tomebench.sweeps.config_files import goal_asked

    goal = goal_asked(limits)
    measured, remarks = read_runs([Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)])
    found = as_json(choice.recommend(measured, goal or choice.goal_of(measured), seed))
    return {**found, "remarks": [*remarks, *found["remarks"]]}


def advise(rows: Sequence[Row] | str | Path, max_drop: float | None = None) -> Answer | None:
    """Recommend a row: the fastest that is surely faster than r = 0 and surely loses at most ``max_drop``.

    Args:
        rows: what :func:`sweep` returned, of one sweep or of several; or the folder of a stored run.
        max_drop: largest tolerable loss of top-1 against r = 0, in points, in [0, 100]; by default 1, or for a folder
            that of its sweep.

    Returns:
        The recommended row, None if no row is, with a sentence about it; None if there is nothing to compare.

    Raises:
        InputError: an invalid limit, values that are no rows, or a folder without a run.
        StorageError: the store of the run is damaged.
    """
    from tomebench.errors import InputError
    from tomebench.report.headline import answer
    from tomebench.report.several import in_one_table, read_run
    from tomebench.runs.members import member_runs
    from tomebench.runs.row import Row
    from tomebench.runs.rows import build_rows, limit_of
    from tomebench.runs.setting_values import checked_max_drop
    from tomebench.runs.store import Store
    from tomebench.schema import MAX_DROP

    try:
        limit = MAX_DROP if max_drop is None else checked_max_drop(max_drop)
    except ValueError as error:
        raise InputError(f"max_drop {max_drop!r}: {error}") from error
    if isinstance(rows, str | Path):
        runs = member_runs(Path(rows))
        if len(runs) > 1:
            found, context = in_one_table(
                runs, [read_run(run) for run in runs], max_drop=None if max_drop is None else limit
            )
            return answer(found, context.max_drop)
        with Store.read(runs[0]) as store:
            return answer(build_rows(store), limit_of(store) if max_drop is None else limit)
    if not all(isinstance(row, Row) for row in rows):
        raise InputError(f"advise takes the rows that sweep returned, or a run folder, and no {type(rows).__name__}")
    return answer(rows, limit)


def check(
    run: str | Path | None,
    baseline: str | Path,
    *tiers: Literal["static", "accuracy", "speed"],
    tolerance: float = 5.0,
    max_drop: str | float = 0.5,
    absolute: bool = False,
    confirm: bool = True,
    checkpoint: str | Path | None = None,
) -> list[Finding]:
    """Compare a run with a stored baseline, as ``tomebench check`` does (the gate).

    Args:
        run: run folder; None computes the static tier of the baseline's own settings.
        baseline: file that ``tomebench check --update-baseline`` wrote.
        tiers: to compare; by default all that the baseline has.
        tolerance: slow-down in % up to which speeds count as the same.
        max_drop: loss of top-1 up to which a loss that is not significant passes, 0.5 (points) or "3images"; a
            significant loss is always worse.
        absolute: compare images per second too, where the testbeds match.
        confirm: measure cells that look slower again, in a fresh process, before they count as worse.
        checkpoint: where the weights are on this machine.

    Returns:
        A finding for each tier and cell. The gate passes if and only if there is at least one finding and every
        ``verdict`` is "same" or "better".

    Raises:
        TomebenchError: see :mod:`tomebench.errors`; BaselineError where the baseline cannot be used.
    """
    from tomebench.gate.compare import Limits
    from tomebench.gate.compare_accuracy import MaxDrop
    from tomebench.gate.compare_speed import SpeedLimits
    from tomebench.gate.judge import judge

    limits = Limits(SpeedLimits(tolerance / 100, absolute), MaxDrop.parse(max_drop))
    folder = None if run is None else Path(run)
    weights = None if checkpoint is None else Path(checkpoint)
    return list(judge(folder, Path(baseline), tiers, limits, confirm=confirm, checkpoint=weights).findings)


def load_results(run: str | Path) -> pd.DataFrame:
    """Load the result table of a run folder, rebuilt from the raw measurements.

    Returns:
        One line per row with the columns of :data:`tomebench.runs.row.COLUMNS`; what was not measured is missing.

    Raises:
        InputError: the folder holds no run.
        StorageError: the store is damaged.
    """
    from tomebench.report.frames import to_frame
    from tomebench.report.several import in_one_table, read_run
    from tomebench.runs.members import member_runs
    from tomebench.runs.rows import build_rows
    from tomebench.runs.store import Store

    runs = member_runs(Path(run))
    if len(runs) > 1:
        return to_frame(in_one_table(runs, [read_run(each) for each in runs])[0])
    with Store.read(runs[0]) as store:
        return to_frame(build_rows(store))
