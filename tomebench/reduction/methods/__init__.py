"""Reduction methods, one per file: ToMe, its controls and ablations, and its rivals.

:mod:`tomebench.reduction.registry` lists them, and says how to add one.
"""
