"""Measuring a model: clocks and bursts, speed, memory, accuracy, and what it was measured on."""
