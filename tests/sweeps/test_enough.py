"""How few images can show nothing, which is said before a sweep takes its time."""

from __future__ import annotations

from pathlib import Path

from tomebench.sweeps import run
from tomebench.sweeps.enough import too_few
from tomebench.sweeps.events import Note
from tomebench.sweeps.settings import load_config


def config(**settings: object):
    defaults = {"model": "digits_vit", "r": "0,8", "data": "digits", "device": "cpu", "budget": "none", "workers": 0}
    return load_config([], {**defaults, **settings})


def test_it_is_said_of_what_is_evaluated_and_once(tmp_path: Path) -> None:
    def said(**settings: object) -> list[str]:
        events = run.run_sweep(config(limit=64, **settings), tmp_path / "run", lambda: False)
        return [event.text for event in events if isinstance(event, Note) and "cannot show" in event.text]

    line = "64 images cannot show a loss to be within 1 point, even if none is lost: that takes 381 at least"
    assert said() == [line]
    assert said() == []  # all of them have been seen
    assert too_few(config(max_drop=10), 1, 64) is None
    assert too_few(config(labels=False), 1, 64) == (
        "64 images cannot show a loss to be within 1 point, even if all keep their class: that takes 381 at least"
    )
    assert too_few(config(max_drop=0), 1, 64) == (
        "no number of images can show that nothing at all is lost; --max-drop 0 is too strict"
    )
