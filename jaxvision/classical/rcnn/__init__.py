"""R-CNN and SPP-net: what they do with proposals, beside the network.

Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation",
2014, https://arxiv.org/abs/1311.2524: windows around proposals are warped to one size, a network
describes each, linear SVMs score them, and a regression moves them. He et al., "Spatial Pyramid
Pooling in Deep Convolutional Networks", 2014, https://arxiv.org/abs/1406.4729: the network sees the
image once, and a pyramid of maxima describes each proposal.

Boxes are (x0, y0, x1, y1) in pixels. `jaxvision.commands.rcnn` puts it together.
"""

from jaxvision.classical.rcnn.detections import Detections, detect
from jaxvision.classical.rcnn.learning import (
    NORM,
    Mining,
    Regression,
    fit_boxes,
    fit_svms,
    ridge,
    unit_scale,
)
from jaxvision.classical.rcnn.windows import (
    PYRAMID,
    Objects,
    Sampler,
    Windows,
    spatial_pyramid,
    warp,
    windows_of,
    with_context,
)

__all__ = [
    "NORM",
    "PYRAMID",
    "Detections",
    "Mining",
    "Objects",
    "Regression",
    "Sampler",
    "Windows",
    "detect",
    "fit_boxes",
    "fit_svms",
    "ridge",
    "spatial_pyramid",
    "unit_scale",
    "warp",
    "windows_of",
    "with_context",
]
