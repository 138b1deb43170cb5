"""Exceptions of tomebench and their exit codes.

::

    TomebenchError                 1   (never raised itself: an exit of 1 is a bug)
    ├── InputError                 2   bad usage or input: what is wrong, and what to do
    │   ├── SpecError                  an r, schedule or option value that cannot be read
    │   ├── ConfigError                a YAML file or a combination of settings
    │   ├── ModelError                 unknown model, or weights that cannot be loaded
    │   │   └── UnsupportedModelError  a known model with a part that merging does not know
    │   ├── DataError                  images, class folders, labels
    │   ├── DeviceError                device or dtype this machine does not have
    │   └── RunError                   the run folder: in use, or holding another configuration
    ├── BaselineError              4   a baseline that is missing, damaged or of another version
    ├── StorageError               5   the disk is full, read-only, or the store is damaged
    ├── DeviceLostError            5   a GPU that failed under a pass and is of no use to this process any more
    ├── RankError                  5   a process of several that share a run is gone, or has given up
    └── Interrupted              130   stopped by the user; what was committed can be resumed

A message is one line: first what is wrong, then what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DIFFERS = 3
"""Exit code of a comparison that found something worse, or not as reported."""
EXIT_OPEN = 4
"""Exit code of a comparison that could not be decided."""
EXIT_FAILED_CELLS = 5
"""Exit code of a sweep that finished although some cells failed."""


class TomebenchError(Exception):
    """Base class of all errors raised on purpose; ``exit_code`` is that of the command line."""

    exit_code: ClassVar[int] = 1


class InputError(TomebenchError):
    """Bad usage or input of the caller."""

    exit_code = 2


class SpecError(InputError):
    """A value such as ``--r`` or ``--schedule`` that cannot be read."""


class ConfigError(InputError):
    """A configuration file, or settings that contradict each other."""


class ModelError(InputError):
    """An unknown model, or a checkpoint that does not fit it."""


class UnsupportedModelError(ModelError):
    """A model with a part that token reduction does not know how to run."""


class DataError(InputError):
    """Images or labels that cannot be used as they are."""


class DeviceError(InputError):
    """A device or dtype that is not available here."""


class RunError(InputError):
    """A run folder that belongs to another configuration or another process."""


class BaselineError(TomebenchError):
    """Nothing can be compared with this baseline."""

    exit_code = 4


class StorageError(TomebenchError):
    """Results cannot be written or read back."""

    exit_code = 5


class DeviceLostError(TomebenchError):
    """A GPU failed during a pass and cannot be used by this process any more; earlier results are kept."""

    exit_code = 5


class RankError(TomebenchError):
    """One of several processes that share a run has died, hangs or has given up; what was committed can be resumed.

    ``quiet``: another process prints the error.
    """

    exit_code = 5

    def __init__(self, message: str, *, quiet: bool = False) -> None:
        super().__init__(message)
        self.quiet = quiet


class Interrupted(TomebenchError):
    """Stopped on request; everything committed so far is kept."""

    exit_code = 130
