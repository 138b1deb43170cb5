"""Data sets: listing and reading of images, labels and the order of classes, decoding, batches, pixel cache, checks."""
