"""Settings every test shares."""

from __future__ import annotations

from hypothesis import settings

# No deadline: the first call of a torch operation loads code and can take a hundred times as long as the next.
settings.register_profile("tomebench", deadline=None)
settings.load_profile("tomebench")
