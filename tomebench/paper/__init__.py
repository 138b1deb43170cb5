"""The ToMe paper's tables as data, the runs that measure them, and verdicts on what is reproduced."""
