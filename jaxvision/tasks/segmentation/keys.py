"""Configuration keys of semantic segmentation, the group `segmentation`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import FREE, Key
from jaxvision.errors import UserError

KEYS = {
    "loss": Key(
        "cross_entropy",
        "several, joined by +, of cross_entropy, focal, dice, soft_iou, tversky, lovasz and your "
        "own",
        part=True,
    ),
    "loss_options": Key(FREE, "arguments of the terms, e.g. {'focal': {'gamma': 3.0}}"),
    "one_output": Key(
        False,
        "two classes by a network of one output: the logit of the second class (a sigmoid)",
    ),
    "hard_share": Key(
        0.0, "keep the hardest pixels, at least this share (0: all count)", least=0, below=1
    ),
    "hard_threshold": Key(
        0.7,
        "with hard_share: pixels whose class has less probability are kept too",
        above=0,
        below=1,
    ),
    "label_smoothing": Key(0.0, "mass given uniformly to all classes", least=0, below=1),
    "class_weights": Key([], "weight of each class in the loss (empty: all one)", least=0),
    "l1": Key(0.0, "L1 penalty on kernels, added to the loss", least=0),
    "l2": Key(0.0, "L2 penalty (half squared norm) on kernels, added to the loss", least=0),
    "auxiliary_weight": Key(0.3, "weight of the losses of auxiliary heads", least=0),
    "scales": Key([1.0], "evaluation: sizes to average over, relative to the image's", above=0),
    "flip": Key(False, "evaluation: average over the mirrored image too"),
    "window": Key([], "evaluation: [height, width] of sliding windows (empty: all at once)"),
    "overlap": Key(
        0.5, "evaluation: the part of a window that the next covers again", least=0, below=1
    ),
    "void": Key(
        "ignore",
        "what is predicted on void: ignore, or false_positives",
        choices=("ignore", "false_positives"),
    ),
    "void_class": Key("", "the last class, if metrics are to take it for void"),
    "boundary": Key(
        0.0,
        "tolerance of the boundary F1, of the diagonal; e.g. 0.0075 (0: off)",
        least=0,
        below=1,
    ),
}

RENAMED = {
    "loss.name": "loss",
    "loss.options": "loss_options",
    **{
        f"loss.{key}": key
        for key in (
            "hard_share",
            "hard_threshold",
            "label_smoothing",
            "class_weights",
            "l1",
            "l2",
            "auxiliary_weight",
        )
    },
    **{
        f"eval.{key}": key
        for key in ("scales", "flip", "window", "overlap", "void", "void_class", "boundary")
    },
}


def check(values: Mapping[str, Any]) -> None:
    """What must agree among the keys.

    Raises:
      UserError: naming them.
    """
    if not values["scales"]:
        raise UserError("segmentation.scales is empty; (1.0,) is the image as it is.")
