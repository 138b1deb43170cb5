"""Which model is measured: names, weights and preprocessing."""
