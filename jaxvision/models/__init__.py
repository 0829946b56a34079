"""The registry: `create("resnet20_cifar", num_classes=10)`, `names("vit*")`.

A family is one file that defines `VARIANTS: dict[name, Variant]`; it is listed in `_FAMILIES`.
"""

import dataclasses
import fnmatch
from typing import Any

from flax import linen as nn

from jaxvision.errors import unknown
from jaxvision.models import lenet, mlp, resnet_cifar, unet, vit
from jaxvision.models.variant import Variant

_FAMILIES = (mlp, lenet, resnet_cifar, vit, unet)
_REGISTRY: dict[str, Variant] = {
    name: entry for family in _FAMILIES for name, entry in family.VARIANTS.items()
}
_PRIVATE = ("parent", "name")


def variant(name: str) -> Variant:
    """The registry's entry for `name`.

    Raises:
      UserError: no such model.
    """
    if name not in _REGISTRY:
        raise unknown("model", name, _REGISTRY)
    return _REGISTRY[name]


def create(name: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """The Linen module of a registered network, called as `apply(variables, image, train=...)`.

    Args:
      name: one of `names()`.
      num_classes: length of the output.
      overrides: fields of the module to replace, e.g. `dtype=jnp.bfloat16`, `dropout=0.1`.

    Raises:
      UserError: no such model, or it has no such field.
    """
    entry = variant(name)
    fields = [f.name for f in dataclasses.fields(entry.module) if f.name not in _PRIVATE]
    for key in overrides:
        if key not in fields:
            raise unknown(f"option of model {name!r}", key, fields)
    return entry.module(num_classes=num_classes, **{**entry.options, **overrides})


def names(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def __getattr__(attribute: str) -> Any:
    # `models.list("vit*")` reads as users expect it; a module-level `list` would hide the builtin.
    if attribute == "list":
        return names
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
