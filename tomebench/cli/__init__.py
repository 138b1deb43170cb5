"""The command line: one file per command. Only this room imports typer and rich."""
