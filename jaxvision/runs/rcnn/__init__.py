"""The stages of R-CNN and SPP-net: proposals, a network, features, SVMs, boxes, an evaluation.

Each function makes one stage (`jaxvision.runs.stages`) of what the earlier ones hold; images are
read anew in each, as evaluation sees them (`data.eval_transforms`), and boxes are in their pixels.
"""

from jaxvision.runs.rcnn.features import make_features
from jaxvision.runs.rcnn.learning import Evaluation, evaluate, make_boxes, make_svms
from jaxvision.runs.rcnn.network import make_network, network_settings
from jaxvision.runs.rcnn.splits import make_proposals, stages_in

__all__ = [
    "Evaluation",
    "evaluate",
    "make_boxes",
    "make_features",
    "make_network",
    "make_proposals",
    "make_svms",
    "network_settings",
    "stages_in",
]
