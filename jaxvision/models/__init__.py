"""The registry: `create("resnet50", num_classes=10)`, `names("vit*")`.

A family is one file that defines `VARIANTS: dict[name, Variant]`, and perhaps `ALIASES: dict[alias,
name]`; it is listed in `_FAMILIES`.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.errors import unknown
from jaxvision.models import (
    alexnet,
    autoencoder,
    beit,
    bninception,
    capsnet,
    deconvnet,
    deeplabv3,
    deeplabv3plus,
    densenet,
    dilated,
    espnet,
    fcn,
    googlenet,
    inception,
    inception_v4,
    lenet,
    mixer,
    mlp,
    mobilenet,
    nasnet,
    patch_classifier,
    residual_cifar,
    resnet,
    resnet_cifar,
    segnet,
    senet,
    shufflenet,
    squeezenet,
    swin,
    unet,
    unet_encoder,
    upernet,
    vgg,
    vit,
    vnet,
    xception,
)
from jaxvision.models.variant import Variant

_FAMILIES = (
    # Classic networks: layers in a row.
    mlp,
    lenet,
    alexnet,
    vgg,
    squeezenet,
    # Inception: branches beside each other, found by hand or by a search.
    googlenet,
    bninception,
    inception,
    inception_v4,
    xception,
    nasnet,
    # Residual and densely connected networks.
    resnet,
    resnet_cifar,
    residual_cifar,
    senet,
    densenet,
    # Networks for phones.
    mobilenet,
    shufflenet,
    # Capsules.
    capsnet,
    # Transformers, and MLPs over patches.
    vit,
    swin,
    beit,
    mixer,
    # Segmentation.
    unet,
    unet_encoder,
    deeplabv3,
    deeplabv3plus,
    upernet,
    segnet,
    fcn,
    espnet,
    vnet,
    deconvnet,
    dilated,
    autoencoder,
    patch_classifier,
)
_REGISTRY: dict[str, Variant] = {
    name: entry for family in _FAMILIES for name, entry in family.VARIANTS.items()
}
ALIASES: dict[str, str] = {
    alias: name for family in _FAMILIES for alias, name in getattr(family, "ALIASES", {}).items()
}


def variant(name: str) -> Variant:
    """The registry's entry for `name`, which may be an alias (torchvision's name).

    Raises:
      UserError: no such model.
    """
    name = ALIASES.get(name, name)
    if name not in _REGISTRY:
        raise unknown("model", name, _REGISTRY)
    return _REGISTRY[name]


def create(name: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """The Linen module of a registered network, called as `apply(variables, image, train=...)`.

    Args:
      name: one of `names()`.
      num_classes: length of the output; 0 gives a classifier's pooled features in its place.
      overrides: fields of the module to replace, e.g. `dtype=jnp.bfloat16`, `dropout=0.1`.
        `features_only=True` makes it return the tuple of its feature maps, finest first. A network
        that stands on another takes that one's name as `encoder`, and options for it as
        `encoder_options`.

    Raises:
      UserError: no such model, or it has no such field.
    """
    entry = variant(name)
    known = options(name)
    for key in overrides:
        if key == "features_only" and key not in known:
            having = [other for other in _REGISTRY if key in options(other)]
            raise unknown("model with a feature pyramid", name, having)
        if key not in known:
            raise unknown(f"option of model {name!r}", key, known)
    fields = {**entry.options, **overrides}
    if "encoder" in fields:
        fields["encoder"] = _encoder(entry, fields, overrides.get("encoder_options", {}))
        fields.pop("encoder_options", None)
    return entry.module(num_classes=num_classes, **fields)


def _encoder(entry: Variant, fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> nn.Module:
    """The network that gives another its feature maps, named as in that one's reference.

    Of the variant's own options for its encoder another one gets those that it knows.
    """
    known = options(fields["encoder"])
    chosen = {
        **{k: v for k, v in entry.options.get("encoder_options", {}).items() if k in known},
        **({"dtype": fields["dtype"]} if "dtype" in fields else {}),
        **wanted,
    }
    place = getattr(entry.module, "ENCODER", "encoder")
    return create(fields["encoder"], features_only=True, **chosen).clone(name=place)


def encoder_of(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """(registered name, place in the parameter tree) of the network that `name` stands on.

    Args:
      name: a registered network.
      options: what `create` is called with, which may name another encoder.

    Raises:
      UserError: no such network, or it stands on no other.
    """
    entry = variant(name)
    if "encoder" not in entry.options:
        having = [other for other, one in _REGISTRY.items() if "encoder" in one.options]
        raise unknown("model with an encoder", name, having)
    encoder = options.get("encoder", entry.options["encoder"])
    return encoder, getattr(entry.module, "ENCODER", "encoder")


def options(name: str) -> list[str]:
    """What `create` takes for this network beside `num_classes`.

    Raises:
      UserError: no such model.
    """
    fields = [f.name for f in dataclasses.fields(variant(name).module)]
    if "encoder" in fields:
        fields.append("encoder_options")
    return [field for field in fields if field not in ("num_classes", "parent", "name")]


class FeatureLevel(NamedTuple):
    """One level of a feature pyramid."""

    channels: int
    stride: int


def feature_info(name: str, **overrides: Any) -> tuple[FeatureLevel, ...]:
    """Channels and strides of the maps that `features_only=True` gives, finest first.

    A stride is the published input's side over the map's; where padding makes that no whole number
    it is the nearest power of two.

    Raises:
      UserError: no such model, or it has no feature pyramid.
    """
    model = create(name, features_only=True, **overrides)
    image = jax.ShapeDtypeStruct((1, *variant(name).input_shape), jnp.float32)
    maps = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)

    def stride(side: int) -> int:
        ratio = image.shape[1] / side
        return int(ratio) if ratio == int(ratio) else 2 ** round(math.log2(ratio))

    return tuple(FeatureLevel(x.shape[-1], stride(x.shape[1])) for x in maps)


def names(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def __getattr__(attribute: str) -> Any:
    # `models.list("vit*")` reads as users expect it; a module-level `list` would hide the builtin.
    if attribute == "list":
        return names
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
