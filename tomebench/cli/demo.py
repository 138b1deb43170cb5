"""``tomebench demo``: an ordinary sweep of the embedded model on the embedded images."""

from __future__ import annotations

from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.cli.sweep import run


@takes_sweep_flags
def demo(flags: SweepFlags) -> None:
    """The whole job on the embedded model and images, offline.

    Example: tomebench demo

    About a minute on two cores. It is "tomebench sweep --config demo", so every flag of sweep changes it.
    """
    from tomebench.sweep.config import packaged_config

    run(flags.load(packaged_config("demo")), flags)
