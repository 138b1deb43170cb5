"""The real program, which finds what was installed into the folder that ``INSTALLED`` names."""

from __future__ import annotations

import os
import sys

from tomebench.cli.app import main
from tomebench.reduction.added import added_methods

if __name__ == "__main__":
    sys.path.insert(0, os.environ["INSTALLED"])
    added_methods.cache_clear()  # the process that this one was forked from has looked already
    main()
