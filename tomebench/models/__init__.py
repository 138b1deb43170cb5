"""Models: names and aliases, architectures, loading of weights and checkpoints, preprocessing, digests."""
