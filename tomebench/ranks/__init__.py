"""Several processes that share one sweep: which is which, what they tell each other, and who is still there."""
