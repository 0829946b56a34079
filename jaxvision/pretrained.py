"""Networks with trained weights: `model, variables = pretrained.create("resnet50")`.

Published weights seldom fit as they are: another number of classes, other image channels, another
image size. What can be adapted is adapted as timm does it; the rest is refused by name.
"""

import fnmatch
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.interop.published import Published, published, resolve
from jaxvision.interop.published import class_names as names_of
from jaxvision.interop.weight_files import read_state_dict, split_choice
from jaxvision.layers.positions import offsets, stored_grid
from jaxvision.models.variant import Variant
from jaxvision.ops import random
from jaxvision.state_dict import Shapes, StateDict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Trained weights that have been read.

    Attributes:
      state: by the names of the network's reference.
      where: they come from; named in errors.
      published: what is known of them beside, if they are published ones.
      ignore: shell patterns of names that the network may lack.
      vocabulary: what its tokens are, as `data.facts.Facts` has it; None where nothing says it.
      palette: what its colours are, alike; () where nothing says it.
    """

    state: StateDict
    where: str
    published: Published | None = None
    ignore: tuple[str, ...] = ()
    vocabulary: Mapping[str, Any] | None = None
    palette: tuple[tuple[float, ...], ...] = ()


def read(weights: str, name: str) -> Weights:
    """The trained weights of a registered network.

    Args:
      weights: see `interop.published.resolve`; after it perhaps `#` and, with commas between,
        which state_dict of the file (`#state_dict_ema`), and what the network may lack
        (`#ignore=*.mask`).
      name: of the network.

    Raises:
      UserError: there are no such weights.
    """
    choice = split_choice(weights)
    path, about = resolve(choice.place, name)
    return Weights(read_state_dict(path, choice.part), str(path), about, choice.ignore)


def create(
    name: str,
    weights: str | Weights = "default",
    num_classes: int | None = None,
    image_size: tuple[int, ...] | None = None,
    channels: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """A registered network and its trained variables.

    Args:
      name: of the network, see `models.names()`.
      weights: see `read`; or what was read.
      num_classes: other than the file's: the classifier is then a fresh one; 0 takes it off.
      image_size: (height, width) to resample positions for, or (depth, height, width) of volumes;
        by default that of the weights.
      channels: of the images, to adapt the first layer to; by default those of the network.
      seed: of what is initialised afresh.
      options: fields of the module; `features_only=True` keeps what the feature maps need.

    Raises:
      UserError: no such network, option or weights, or weights that do not fit.
    """
    entry = models.variant(name)
    found = read(weights, name) if isinstance(weights, str) else weights
    state, about = found.state, found.published
    if num_classes is None and "classes" in entry.ends:
        num_classes = classes_in(entry, state) - (about.background if about else 0)
    *usual_size, colours = entry.input_shape
    trained = about.size if about else 0
    size = image_size or ([trained] * len(usual_size) if trained else usual_size)
    model = _of_grid(models.create(name, num_classes, **options), size)
    image = jnp.zeros((1, *size, channels or colours))
    fresh = jax.jit(lambda: model.init(random.key(seed), image, train=False))()
    loaded = load_state(entry, model, state, dict(fresh), found.where, about, ignore=found.ignore)
    return model, loaded


def _of_grid(model: nn.Module, size: Sequence[int]) -> nn.Module:
    """A network, or one on an encoder, whose positions are declared to be of images of a size.

    Squares need no declaration; see `layers.positions.stored_grid`.

    Raises:
      UserError: a file's positions may be of a square of as many.
    """
    inner = getattr(model, "encoder", model)
    if len(set(size)) == 1 or getattr(inner, "grid", ()) is not None:
        return model
    height, width = (-(-side // inner.patch_size) for side in size)
    grid = (height, width)
    for count in (math.prod, offsets):
        stored_grid(count(grid), grid, count=count)
    declared = inner.clone(grid=grid)
    return declared if inner is model else model.clone(encoder=declared)


def _declared_grid(model: nn.Module) -> tuple[int, int] | None:
    return getattr(getattr(model, "encoder", model), "grid", None)


def classes_in(entry: Variant, state: StateDict) -> int:
    """How many classes the classifier of a published state_dict has; 0 if it has no classifier."""
    names = [f"{layer}.weight" for layer in entry.classifier[:1]]
    found = entry.convert(state)
    return next((len(found[name]) for name in names if name in found), 0)


def load_into(
    name: str,
    model: nn.Module,
    weights: Weights,
    variables: dict[str, Any],
    *,
    fine_tune: bool = False,
    reset_classifier: bool = False,
) -> dict[str, Any]:
    """`variables` of a registered network with the values of trained weights.

    Args:
      name: of the network.
      model: the module.
      weights: see `read`.
      variables: arrays; without `fine_tune` shapes are enough.
      fine_tune: whether a classifier for other classes is left as it is in `variables`.
      reset_classifier: whether one that fits is too.

    Raises:
      UserError: the weights do not fit.
    """
    return load_state(
        models.variant(name),
        model,
        weights.state,
        variables,
        weights.where,
        weights.published,
        ignore=weights.ignore,
        fine_tune=fine_tune,
        reset_classifier=reset_classifier,
    )


def fill_encoder(
    encoder: str,
    place: str,
    weights: Weights,
    variables: dict[str, Any],
    module: nn.Module | None = None,
) -> dict[str, Any]:
    """`variables` of a network that stands on another, with trained weights of that other one.

    Args:
      encoder: the other network's name; see `models.encoder_of` for it and `place`.
      place: of the encoder in the parameter tree.
      weights: of the encoder.
      variables: of the network that stands on it.
      module: the encoder, where its options are not those of the registry.

    Raises:
      UserError: the weights do not fit.
    """
    inner = {kind: tree[place] for kind, tree in variables.items() if place in tree}
    if module is None:
        module = models.create(encoder, features_only=True)
    filled = load_into(encoder, module, weights, inner)
    return {kind: {**tree, **({place: filled[kind]} if kind in filled else {})}
            for kind, tree in variables.items()}  # fmt: skip


def load_state(
    entry: Variant,
    model: nn.Module,
    state: StateDict,
    variables: dict[str, Any],
    where: str,
    about: Published | None = None,
    *,
    ignore: tuple[str, ...] = (),
    fine_tune: bool = True,
    reset_classifier: bool = False,
) -> dict[str, Any]:
    """`variables` with the values of a published state_dict; see `load_into`.

    Raises:
      UserError: lists the missing, unexpected and mis-shaped names.
    """
    if getattr(model, "features_only", False) or getattr(model, "tokens_only", False):
        dropped: tuple[str, ...] = ("",)  # a part of the network has no place for the rest
    else:
        dropped = entry.auxiliary
        if getattr(model, "num_classes", None) == 0:
            dropped += tuple(f"{layer}." for layer in entry.classifier)
    shapes = torch_weights.torch_shapes(variables)
    adapted = adapt(entry, entry.convert(state), shapes, about, _declared_grid(model))
    state = {
        name: value
        for name, value in adapted.items()
        if name in shapes or not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    }
    kept: list[str] = []
    for layer in entry.classifier:
        leaves = [name for name in shapes if name.startswith(f"{layer}.")]
        fits = all(name in state and state[name].shape == shapes[name] for name in leaves)
        if fine_tune and leaves and (reset_classifier or not fits):
            logger.info("%s of %s is initialised afresh.", layer, where)
            kept += leaves
            state = {name: value for name, value in state.items() if name not in leaves}
    return torch_weights.to_variables(state, variables, where, keep=frozenset(kept), ignore=dropped)


def adapt(
    entry: Variant,
    state: StateDict,
    shapes: Shapes,
    about: Published | None = None,
    grid: tuple[int, int] | None = None,
) -> StateDict:
    """A state_dict by the reference's names, fitted to other images as far as that can be done.

    - Image channels: weights for colour are summed for grey images, else repeated over the
      channels and scaled so that their sum stays.
    - Image size: `entry.resize`, which is told the grid that the network declares.
    - A class for the background, which some files have before the others, is taken off.
    """
    out = entry.resize(dict(state), shapes, grid)
    name = f"{entry.first}.weight"
    if name in out and name in shapes and out[name].ndim == 4:
        out[name] = adapt_channels(out[name], shapes[name][1])
    for layer in entry.classifier:
        for part in (f"{layer}.weight", f"{layer}.bias"):
            extra = about.background if about else 0
            if part in out and part in shapes and len(out[part]) == shapes[part][0] + extra:
                out[part] = out[part][extra:]
    return out


def adapt_channels(weight: np.ndarray, channels: int) -> np.ndarray:
    """First-layer weights [o, i, h, w] for images of other channels, as timm's.

    Only weights for three channels can be adapted; others are returned as they are.
    """
    inputs = weight.shape[1]
    if inputs == channels or inputs != 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdims=True)
    repeated = np.tile(weight, (1, -(-channels // 3), 1, 1))[:, :channels]
    return (repeated * np.float32(3 / channels)).astype(weight.dtype)


def preparation(about: Mapping[str, Any] | Published) -> tuple[dict[str, Any], ...]:
    """Host transforms that prepare an image as published weights expect it: resize, then crop.

    Nothing is cropped for segmentation and detection; there images keep their aspect ratio, or
    become squares.
    """
    entry = about if isinstance(about, Published) else Published(**about)
    if not entry.size:
        return ()
    if not entry.crop:
        whole: dict[str, Any] = {"size": entry.size, "interpolation": entry.interpolation}
        if not entry.antialias:
            whole["antialias"] = False
        if entry.longest:
            whole = {**whole, "longest": entry.longest, "multiple": 32}
            return ({"name": "resize_shortest", **whole},)
        if entry.letterbox:
            fill = round(255 * sum(entry.mean) / len(entry.mean))
            return ({"name": "letterbox", **whole, "center": False, "fill": fill},)
        return ({"name": "resize" if entry.square else "resize_shorter", **whole},)
    return (
        {
            "name": "resize_shorter",
            "size": int(entry.size / entry.crop),
            "interpolation": entry.interpolation,
        },
        {"name": "center_crop", "size": entry.size},
    )


def usual(name: str, classes: int) -> Published:
    """What is supposed of a file that nothing is known of.

    Classifiers: what is usual for ImageNet, at the size of the network's input. Segmentation
    networks and detectors: what is known of their default weights, so that those may come from
    anywhere.

    Args:
      name: of a registered network.
      classes: how many the file has.

    Raises:
      UserError: nothing is known of a network without classes.
    """
    entry = models.variant(name)
    known = next(iter(published(name).values()), None)
    if known is not None and (entry.finds_objects or known.tokenizer or not classes):
        # Its classifier has as many outputs as the reference makes of the classes, or of tokens; or
        # it has none.
        return known
    if "classes" not in entry.ends:
        raise UserError(
            f"Nothing says how images of {name} are prepared; give --config and --weights."
        )
    if entry.role != "segmentation":
        return Published(size=entry.input_shape[0], classes=classes)
    ordinary = Published(size=entry.input_shape[0], crop=0, classes=0)
    about = known or ordinary
    return replace(about, classes=classes, labels=about.labels * (classes == about.classes))


def class_names(about: Published) -> tuple[str, ...]:
    """The names of the classes of published weights, as far as they are known; () of tokens."""
    if about.tokenizer:
        return ()
    count = about.classes - about.background
    labels = "imagenet" if count == 1000 else about.labels
    return names_of(labels) if labels else tuple(f"class {i}" for i in range(count))
