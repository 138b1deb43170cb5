"""Token reduction on tensors. Knows torch and nothing about any model library."""
