"""``python -m tomebench``."""

from tomebench.cli.app import main

if __name__ == "__main__":
    main()
