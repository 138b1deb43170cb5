"""The command line ``tomebench``: one file per command. Only this package imports typer and rich."""
