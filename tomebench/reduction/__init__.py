"""Token reduction (ToMe and others) on tensors: schedule of r, metric, matching, merging, attention, the reduced ViT.

Depends on torch only, on no model library.
"""
