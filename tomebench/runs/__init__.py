"""Stored runs: the run's SQLite file, its rounds and predictions, and the result rows derived from them; no torch."""
