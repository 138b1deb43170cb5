"""The gate: has anything become worse than a stored baseline? Records, files and verdicts; numbers only."""
