"""Configuration keys of image classification, the group `classification`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import FREE, Key
from jaxvision.errors import UserError

LOSSES = ("cross_entropy", "hinge", "margin")

KEYS = {
    "loss": Key(
        LOSSES[0],
        "cross_entropy, hinge (SVM), margin (CapsNet), or one of your own",
        part=True,
    ),
    "label_smoothing": Key(0.0, "mass given uniformly to all classes", least=0, below=1),
    "class_weights": Key([], "weight of each class in the loss (empty: all one)", least=0),
    "l1": Key(0.0, "L1 penalty on kernels, added to the loss", least=0),
    "l2": Key(0.0, "L2 penalty (half squared norm) on kernels, added to the loss", least=0),
    "auxiliary_weight": Key(
        0.3, "weight of the losses of auxiliary heads (GoogLeNet: 0.3)", least=0
    ),
    "reconstruction_weight": Key(
        5e-4, "weight of the squared errors of reconstructed images", least=0
    ),
    "distillation.model": Key("", "the network to learn from (empty: off)"),
    "distillation.options": Key(FREE, "fields of the teacher to override"),
    "distillation.weights": Key("", "the teacher's weights, as model.weights"),
    "distillation.kind": Key(
        "hard",
        "hard: the teacher's class; soft: its probabilities",
        choices=("hard", "soft"),
    ),
    "distillation.weight": Key(
        0.5, "share of the teacher in the loss; the labels have the rest", least=0, below=1
    ),
    "distillation.temperature": Key(1.0, "soft: what logits are divided by", above=0),
}

RENAMED = {
    "loss.name": "loss",
    **{f"loss.{key}": key for key in KEYS if key != "loss" and "." not in key},
    **{key: key for key in KEYS if key.startswith("distillation.")},
}


def check(values: Mapping[str, Any]) -> None:
    """What must agree among the keys.

    Raises:
      UserError: naming them.
    """
    if values["loss"] != LOSSES[0] and values["label_smoothing"]:
        raise UserError(
            "classification.label_smoothing is for classification.loss='cross_entropy'; "
            "set it to 0."
        )
    if values["distillation.model"] and not values["distillation.weights"]:
        raise UserError(
            "classification.distillation.model needs classification.distillation.weights: "
            "a trained teacher."
        )
