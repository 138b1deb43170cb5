"""Stored runs compared: methods and plain rivals at equal accuracy, tokens, MACs and measured speed."""
