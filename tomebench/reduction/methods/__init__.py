"""Reduction methods, one per file: ToMe, greedy matching, k-means, pruning.

:mod:`tomebench.reduction.registry` lists them, and says how to add one.
"""
