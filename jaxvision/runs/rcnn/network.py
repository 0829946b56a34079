"""The network that describes windows, and its fine-tuning."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array
from ml_collections import ConfigDict

from jaxvision import models, pretrained
from jaxvision.classical import rcnn
from jaxvision.data import augment
from jaxvision.errors import UserError, unknown
from jaxvision.interop import torch_weights
from jaxvision.losses import cross_entropy
from jaxvision.ops import random
from jaxvision.progress import tracked
from jaxvision.runs.rcnn.splits import class_names, parts, windows_of
from jaxvision.runs.stages import Record, Stages
from jaxvision.tasks import base
from jaxvision.train import compilation, optimizer, schedule, weights

_MULTIPLE = 32  # of which images' sides are made, so that few shapes are compiled


@dataclass(frozen=True)
class Network:
    """The network that describes windows, before or after fine-tuning."""

    name: str
    options: Mapping[str, Any]
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, image: Array) -> Array:
        """uint8 [b h w c] as the network takes it."""
        return augment.normalize(augment.to_float(image), self.mean, self.std)


def network_settings(config: ConfigDict, network: str, weights: str) -> dict[str, Any]:
    """What stands for a network: its name, options and the weights that it starts from.

    Args:
      config: whose detector's encoder is taken, with its weights, where `network` is "".
      network: a registered classifier, or "".
      weights: see `pretrained.read`; "" is none.

    Raises:
      UserError: the configured detector stands on no other network, or there is no such network.
    """
    if network:
        options: dict[str, Any] = {}
    else:
        given = config.model.options.to_dict()
        network, _ = models.encoder_of(config.model.name, given)
        options, weights = given.get("encoder_options", {}), weights or config.model.encoder_weights
    classifiers = [name for name in models.names() if models.variant(name).role == "backbones"]
    if models.variant(network).role != "backbones":
        raise unknown("classifier", network, classifiers)
    return {"network": network, "network_options": options, "weights": weights}


def fresh(config: ConfigDict, settings: Mapping[str, Any], classes: int) -> Network:
    """The network before fine-tuning, with a classifier of so many classes."""
    name, options, size = settings["network"], settings["network_options"], settings["crop"]
    if settings["weights"]:
        found = weights.read(settings["weights"], name, "encoder")
        _, variables = pretrained.create(
            name, found, classes, (size, size), 3, config.seed, **options
        )
    else:
        model = models.create(name, classes, **options)
        image = jnp.zeros((1, size, size, 3))
        init = jax.jit(partial(model.init, train=False))
        variables = dict(init(random.key(config.seed), image))
    return Network(name, options, variables, tuple(config.data.mean), tuple(config.data.std))


def make_network(config: ConfigDict, stages: Stages, settings: Mapping[str, Any]) -> Record:
    """Fine-tunes the network on windows: N + 1 classes, 32 of objects and 96 of none in a batch.

    Args:
      settings: `network_settings`, `crop` and `padding` of windows, `steps`. The optimiser and
        schedule are the configuration's.
    """
    part = parts(config, stages)["train"]
    names = class_names(config, part.stream)
    sample = rcnn.Sampler(windows_of(part, len(names)), config.seed)
    network = fresh(config, settings, len(names) + 1)
    model = models.create(network.name, len(names) + 1, **network.options)
    rate = schedule.learning_rate(
        config, total=settings["steps"], steps_per_epoch=settings["steps"]
    )
    rule = optimizer.build(config, network.variables["params"], rate)
    step = _tuning_step(model, network, rule, settings["crop"], settings["padding"])
    images = [part.image(index) for index in range(len(part))]
    sides = np.max([image.shape[:2] for image in images], 0)
    state = network.variables, rule.init(network.variables["params"])
    key, losses = random.key(config.seed), []
    begin = time.perf_counter()
    for number in tracked(range(settings["steps"]), "Fine-tuning", settings["steps"]):
        index, boxes, label = sample()
        shown = np.stack([padded(images[i], tuple(sides)) for i in index])
        size = np.array([images[i].shape[:2] for i in index])
        state, loss = step(state, shown, size, boxes, label, jax.random.fold_in(key, number))
        losses.append(loss)
    values = np.asarray(jax.device_get(losses))
    if not np.isfinite(values).all():
        raise UserError("The loss of fine-tuning is not finite; lower optimizer.learning_rate.")
    path = stages.folder / "network.safetensors"
    torch_weights.save(path, state[0], models.variant(network.name).export)
    last = values[-max(1, len(values) // 10) :]
    notes = {"seconds": time.perf_counter() - begin, "loss": float(last.mean())}
    return stages.write("network", {"loss": values}, settings, ("proposals",), notes)


def _tuning_step(
    model: nn.Module, network: Network, rule: optax.GradientTransformation, size: int, padding: int
) -> Any:
    @partial(jax.jit, compiler_options=compilation.compiler_options())
    def step(state, shown, sizes, boxes, label, key):
        variables, opt_state = state
        others = {kind: tree for kind, tree in variables.items() if kind != "params"}
        flip_key, dropout_key = jax.random.split(key)
        images = inside(network.normalised(shown), sizes)
        windows = rcnn.warp(images, boxes[:, None], size, padding)[:, 0]
        flipped = jax.random.bernoulli(flip_key, 0.5, label.shape)[:, None, None, None]
        windows = jnp.where(flipped, windows[:, :, ::-1], windows)

        def loss(params):
            output, updated = base.apply_train(model, params, others, windows, dropout_key)
            return cross_entropy(base.heads(output)["logits"], label)[0].mean(), updated

        (value, updated), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = rule.update(gradient, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({"params": params, **updated}, opt_state), value

    return step


def padded(image: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    return np.pad(image, [(0, side - have) for side, have in zip(sides, image.shape)] + [(0, 0)])


def rounded(image: np.ndarray) -> np.ndarray:
    height, width = (-(-side // _MULTIPLE) * _MULTIPLE for side in image.shape[:2])
    return padded(image, (height, width))


def inside(images: Array, sizes: Array) -> Array:
    """Normalised images [b h w c], 0 outside of their sizes [b 2]."""
    rows, columns = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
    inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
    return jnp.where(inside[..., None], images, 0)
