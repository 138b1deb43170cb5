"""A stored run: what was measured, in one file, and the rows that it comes to. Never torch."""
