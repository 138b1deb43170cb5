"""The embedded data set: UCI optical digits, split once and for all and drawn as small cluttered RGB images."""

from tomebench.datasets.digits.evaluation import image_list, open_image

__all__ = ["image_list", "open_image"]
