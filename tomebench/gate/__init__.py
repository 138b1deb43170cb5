"""The gate: has anything become worse than a stored baseline? Snapshots of runs, baseline files, findings."""
