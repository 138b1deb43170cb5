"""Entry point of ``python -m tomebench``: the command line."""

from tomebench.cli.app import main

if __name__ == "__main__":
    main()
