"""What the ToMe paper reports, as data, and what counts as reproduced."""
