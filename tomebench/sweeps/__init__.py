"""A sweep: its configuration, its plan, its run and its store."""
