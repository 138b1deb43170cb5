"""How few images can show nothing, which is said before a sweep takes its time."""

from __future__ import annotations

import functools
from pathlib import Path

from runs.store_samples import make_cell, make_resolved

from tomebench import stats
from tomebench.sweeps import run
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.enough import too_few
from tomebench.sweeps.events import Note


def test_it_is_said_of_what_is_evaluated_and_once(tmp_path: Path) -> None:
    def said(**settings: object) -> list[str]:
        defaults = {
            "model": "digits_vit",
            "img_size": 28,
            "data": "digits",
            "limit": 64,
            "device": "cpu",
            "budget": "none",
            "workers": 0,
        }
        events = run.run_sweep(load_config([], {**defaults, **settings}), tmp_path / "run", lambda: False)
        return [event.text for event in events if isinstance(event, Note) and "would not show" in event.text]

    first = said(r="0,8", max_drop=2)
    assert first == [
        "64 images, each answered as at r = 0, would not show a loss to be within 2 points: that takes 189"
    ]
    assert said(r="0,8") == []  # all of them have been seen
    (more,) = said(r="0,4")  # which shares the error with what is there already, and the limit is the run's
    fewest = stats.fewest_images(0.02, level=1 - 0.05 / 2)
    assert more.endswith(f"within 2 points: that takes {fewest}")


def test_rows_that_repeat_another_share_no_error() -> None:
    base, one, other = ((make_cell(r), make_resolved(r)) for r in (0, 4, 8))
    alike = (other[0], one[1])
    few = functools.partial(too_few, images=64, max_drop=1.0, labels=True)
    assert few([base]) is None
    assert few([base, one]) == few([base, one, alike]) != few([base, one, other])
    assert too_few([base, one], 64, 10.0, labels=True) is None
    assert (too_few([base, one], 64, 1.0, labels=False) or "").endswith("that takes 381")
    assert (too_few([base, one], 64, 0.0, labels=True) or "").startswith("no number of images can show")
