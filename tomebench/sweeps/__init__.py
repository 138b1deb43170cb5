"""A sweep over values of r: its configuration, cells, timing, counting of top-1, and resuming in a run folder."""
