"""How few images can show nothing, which is said before a sweep takes its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tomebench import stats
from tomebench.sweeps import run
from tomebench.sweeps.enough import images_to_show, too_few
from tomebench.sweeps.events import Note
from tomebench.sweeps.settings import load_config


def config(**settings: object):
    defaults = {"model": "digits_vit", "r": "0,8", "data": "digits", "device": "cpu", "budget": "none", "workers": 0}
    return load_config([], {**defaults, **settings})


@pytest.mark.parametrize(("limit", "rows"), [(0.5, 1), (1.0, 1), (1.0, 7), (20.0, 24)])
def test_one_image_fewer_shows_it_no_more(limit: float, rows: int) -> None:
    needed = images_to_show(limit, rows)
    assert needed is not None
    level = 1 - 0.05 / rows
    assert stats.paired_interval(0, 0, needed, level=level).lo >= -limit / 100
    assert stats.paired_interval(0, 0, needed - 1, level=level).lo < -limit / 100
    assert (
        stats.wilson(without := images_to_show(limit, rows, labels=False) or 0, without, level=level).lo
        >= 1 - limit / 100
    )
    assert images_to_show(0.0, rows) is None


def test_it_is_said_of_what_is_evaluated_and_once(tmp_path: Path) -> None:
    def said(**settings: object) -> list[str]:
        events = run.run_sweep(config(limit=64, **settings), tmp_path / "run", lambda: False)
        return [event.text for event in events if isinstance(event, Note) and "cannot show" in event.text]

    line = "64 images cannot show a loss to be within 1 point, even if none is lost: that takes 381"
    assert said() == [line]
    assert said() == []  # all of them have been seen
    assert too_few(config(max_drop=10), 1, 64) is None
    assert too_few(config(labels=False), 1, 64) == (
        "64 images cannot show a loss to be within 1 point, even if all keep their class: that takes 381"
    )
    assert too_few(config(max_drop=0), 1, 64) == (
        "no number of images can show that nothing at all is lost; --max-drop 0 is too strict"
    )
