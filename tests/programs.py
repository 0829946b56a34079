"""Networks to write as programs: with weights of their names, in a file."""

import jax
import numpy as np
from parity import deterministic
from safetensors.numpy import save_file

from jaxvision import models, runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.interop import torch_weights
from jaxvision.tasks.base import image_spec

# (shape, options): dense convolutions, tokens, windows of them, maps.
SMALL = {
    "resnet8_cifar": ((16, 16, 3), {}),
    "vit_tiny_patch16_224": ((32, 48, 3), {"depth": 2, "width": 48}),
    "swin_tiny_patch4_window7_224": (
        (56, 56, 3),
        {"depths": (1, 2), "width": 24, "num_heads": (3, 6)},
    ),
    "unet": ((32, 48, 3), {"width": 4, "depth": 2}),
}


def trained(name, shape, options, folder):
    """A network with weights in a file."""
    config = tasks.default_config(tasks.for_role(models.variant(name).role))
    config.model.name, config.model.options = name, options
    config.data.classes, config.data.channels = ("cat", "dog", "owl"), shape[-1]
    config.data.eval_transforms = ({"name": "resize", "size": shape[:2]},)
    config.compilation_cache = "off"
    task = tasks.create(config, Facts(config.data.classes))
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), image_spec(shape)))
    tensors = torch_weights.torch_shapes(shapes)
    weights = str(folder / f"{name}.safetensors")
    save_file({key: deterministic.weights(key, shape) for key, shape in tensors.items()}, weights)
    return runs.with_weights(config, weights)


def photographs(shape, count=3):
    return np.random.default_rng(2).integers(0, 256, (count, *shape), dtype=np.uint8)
