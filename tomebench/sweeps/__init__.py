"""A sweep: its configuration, its cells, its passes, and how they are timed and evaluated."""
