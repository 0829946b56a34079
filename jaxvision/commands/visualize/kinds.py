"""The kinds of pictures: what each is, its options, and the function that draws it."""

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxvision.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from jaxvision.runs import Run

    Drawing = Callable[[argparse.Namespace, Run], tuple[np.ndarray, str]]

AddTo = Callable[[argparse.ArgumentParser], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
      help: what is drawn, in a line.
      place: `module:function` below this package; imported when the picture is drawn, for it needs
        JAX and the parser does not.
      arguments: what adds the options that it has beside those of all kinds.
    """

    help: str
    place: str
    arguments: tuple[AddTo, ...] = ()

    def drawing(self) -> "Drawing":
        """The function (options, run) to (uint8 [h, w, 3], a sentence about it)."""
        module, _, function = self.place.partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)


def _argument(*names: str, **settings: Any) -> AddTo:
    return lambda parser: parser.add_argument(*names, **settings)


def _layer(default: str) -> AddTo:
    return _argument("--layer", help=f"path as in `jaxvision inspect` (default: {default})")


_INPUTS = _argument("inputs", nargs="+", help="image files and folders")
_SPLIT = _argument("--split", help="e.g. test, 'train[90%%:]' (default: data.test)")
_CHANNELS = _argument("--channels", metavar="N,N,...", help="of the layer")
_LABEL = _argument("--label", help="class, by name or index (default: the predicted one)")

KINDS: Registry[Kind] = Registry(
    "kind of picture",
    {
        "filters": Kind(
            "the first convolution's filters (--layer: another on grey or colour images)",
            "weights:filters",
            (_layer("first convolution"),),
        ),
        "activations": Kind(
            "channels of the map that a layer puts out for images",
            "images:activations",
            (_INPUTS, _layer("first map"), _CHANNELS),
        ),
        "saliency": Kind(
            "the gradient of a class or channel with respect to images, by three rules",
            "images:saliency",
            (
                _INPUTS,
                _layer("the logits"),
                _CHANNELS,
                _argument(
                    "--rule",
                    default="all",
                    help="gradient, deconvnet, guided or all (default)",
                ),
                _LABEL,
            ),
        ),
        "grad-cam": Kind(
            "where in images the last map speaks for a class",
            "images:grad_cam",
            (_INPUTS, _layer("last map"), _LABEL),
        ),
        "attention": Kind(
            "what the class token attends to in images, by head",
            "images:attention",
            (
                _INPUTS,
                _argument("--block", type=int, default=-1, help="from 0 (default: the last)"),
            ),
        ),
        "rollout": Kind(
            "what the class token draws on through all blocks",
            "images:rollout",
            (_INPUTS,),
        ),
        "objects": Kind(
            "what the queries of the best objects, or points, attend to in images (DETR, YOLOS)",
            "images:objects",
            (
                _INPUTS,
                _argument("--count", type=int, default=4, help="objects (default 4)"),
                _argument("--points", default="", metavar="X,Y,...", help="in the network's image"),
            ),
        ),
        "stages": Kind(
            "maps, proposals and objects in images, as a detector comes to them",
            "images:stages",
            (
                _INPUTS,
                _argument("--count", type=int, default=4, help="objects (default 4)"),
                _argument("--proposals", type=int, default=30, help="at most (default 30)"),
            ),
        ),
        "patches": Kind(
            "the patches of a split that excite channels most",
            "splits:patches",
            (_SPLIT, _layer("last map"), _CHANNELS),
        ),
        "confusion": Kind(
            "the confusion matrix of a split",
            "splits:confusion",
            (
                _SPLIT,
                _argument("--percent", action="store_true", help="shares instead of counts"),
            ),
        ),
        "misclassified": Kind(
            "the most confident mistakes on a split",
            "splits:misclassified",
            (
                _SPLIT,
                _argument("--count", type=int, default=24, help="how many (default 24)"),
            ),
        ),
    },
)
