"""Pictures of weights."""

import argparse

import numpy as np

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.inspect import draw, features
from jaxvision.interop.torch_weights import torch_name
from jaxvision.runs import Run


def filters(options: argparse.Namespace, run: Run) -> tuple[np.ndarray, str]:
    """The filters of a convolution, each from black to white.

    Raises:
      UserError: there is no such convolution, or it is on other channels than an image's.
    """
    name = run.config.model.name
    if run.folder is not None:
        variables = run.variables
    else:  # which needs neither data nor the names of classes
        more = {"channels": run.config.data.channels, **run.config.model.options.to_dict()}
        _, variables = pretrained.create(name, run.weights, **more)
    layer = options.layer
    if layer is None:
        wanted = f"{models.variant(name).first}.weight"
        paths = features.convolutions(variables)
        layer = next(
            (path for path in paths if torch_name(f"params/{path}/kernel") == wanted), None
        )
    if layer is None:
        raise UserError(f"{name} does not begin with a convolution; give --layer.")
    tiles = features.filters(variables, layer)
    scale = max(1, 48 // max(tiles.shape[1:3]))
    picture = draw.grid(np.repeat(np.repeat(tiles, scale, 1), scale, 2), gap=4)
    return picture, f"{len(tiles)} filters of {layer}."
