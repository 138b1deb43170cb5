"""Progress bar (tqdm) of ``tomebench.sweep`` in a script or notebook; the command line has its own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomebench.sweeps.events import Event


def drawn(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events of a sweep, and show its phases as bars on stderr or as widgets in a notebook."""
    from tqdm.auto import tqdm

    from tomebench.sweeps.events import Note, Phase, Progress

    bar = None
    try:
        for event in events:
            if isinstance(event, Phase):
                if bar is not None:
                    bar.close()
                bar = tqdm(desc=event.name, total=event.total, leave=False)
            elif isinstance(event, Progress) and bar is not None:
                bar.total, bar.unit = event.total, f" {event.unit}"
                bar.set_postfix_str(event.detail, refresh=False)
                bar.update(event.done - bar.n)
            elif isinstance(event, Note):
                tqdm.write(event.text, file=sys.stderr)
            yield event
    finally:
        if bar is not None:
            bar.close()
