"""The embedded data set ``digits``: UCI optical digits in a fixed split, drawn as small cluttered RGB images."""

from tomebench.datasets.digits.evaluation import image_list, open_image

__all__ = ["image_list", "open_image"]
