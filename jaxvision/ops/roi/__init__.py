"""Regions of interest: what a feature map holds inside boxes, in grids of a fixed size.

RoIPool: Girshick, "Fast R-CNN", 2015, https://arxiv.org/abs/1504.08083. RoIAlign: He et al., "Mask
R-CNN", 2017, https://arxiv.org/abs/1703.06870. Position-sensitive pooling: Dai et al., "R-FCN",
2016, https://arxiv.org/abs/1605.06409. Levels of a pyramid: Lin et al., "Feature Pyramid Networks
for Object Detection", 2016, https://arxiv.org/abs/1612.03144, equation 1. Values and gradients are
those of `torchvision.ops`; nothing flows back to the boxes. Masks and key points in boxes: Mask
R-CNN.
"""

from jaxvision.ops.roi.align import multiscale_roi_align, pyramid_level, roi_align
from jaxvision.ops.roi.masks import (
    Overlaps,
    cells_of_keypoints,
    highest_places,
    mask_overlaps,
    masks_in_boxes,
    paste_mask,
)
from jaxvision.ops.roi.pool import roi_pool
from jaxvision.ops.roi.position_sensitive import ps_roi_align, ps_roi_pool

__all__ = [
    "Overlaps",
    "cells_of_keypoints",
    "highest_places",
    "mask_overlaps",
    "masks_in_boxes",
    "multiscale_roi_align",
    "paste_mask",
    "ps_roi_align",
    "ps_roi_pool",
    "pyramid_level",
    "roi_align",
    "roi_pool",
]
