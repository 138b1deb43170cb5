"""The real program, whose fresh processes are those of ``hurried_fresh.py``."""

from __future__ import annotations

from tomebench.cli.app import main
from tomebench.sweeps import processes

if __name__ == "__main__":
    processes.MODULE = "hurried_fresh"
    main()
