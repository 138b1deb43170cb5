"""Several processes that share one sweep, as torchrun starts them: rank, messages, and detection of lost ranks."""
