"""Measure models: clocks, bursts and rounds, stage times, memory, predictions, and the testbed they ran on."""
