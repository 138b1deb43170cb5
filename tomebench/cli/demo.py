"""``tomebench demo``: a sweep of the embedded model digits_vit on the embedded digits, offline."""

from __future__ import annotations

from functools import partial

from tomebench.cli.launch import LaunchFlags
from tomebench.cli.options import takes_sweep_flags
from tomebench.cli.sweep import run


@partial(takes_sweep_flags, defaults=False, flags=LaunchFlags)
def demo(flags: LaunchFlags) -> None:
    """The whole job on the embedded model and images, offline.

    Example: tomebench demo

    About two minutes on two cores. It is "tomebench sweep --config demo", so every flag of sweep changes it;
    what no flag says is in the packaged configuration demo.yaml.
    """
    from tomebench.sweeps.config_files import packaged_config

    run(flags.load(packaged_config("demo")), flags)
