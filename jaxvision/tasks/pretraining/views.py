"""Several views of each image, as networks are shown them in training.

Crops come from the host transform `views`, each with random numbers of its own: `views_global`
[b, v, h, w, c], and others. Without it, two augmentations of `image` are the global views.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.data import augment
from jaxvision.errors import UserError, unknown
from jaxvision.ops.sharing import as_batch, as_views
from jaxvision.tasks import base
from jaxvision.tasks.base import Batch
from jaxvision.tasks.inputs import Inputs

_PREFIX = "views_"
GLOBAL = _PREFIX + "global"

Augmentations = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def checked(augmentations: Augmentations) -> dict[str, tuple[Any, ...]]:
    """What each view of a name is augmented by: `{"global": [[...], [...]], "local": [[...]]}`.

    Raises:
      UserError: it is no such table, or an augmentation does not exist.
    """
    found = {}
    for name, lists in augmentations.items():
        several = not isinstance(lists, (str, Mapping)) and len(lists)
        if not several or any(isinstance(one, (str, Mapping)) for one in lists):
            raise UserError(
                f"pretraining.augment.{name} is {lists!r}; expected a list of augmentations for "
                "each view, such as [[{'name': 'random_blur'}], []]."
            )
        for one in lists:
            augment.validate(one)
        found[name] = tuple(tuple(one) for one in lists)
    return found


def image_shape(spec: base.Spec) -> tuple[int, ...]:
    """Of a global view, [h, w, c]."""
    return tuple(spec[GLOBAL].shape[2:] if GLOBAL in spec else spec["image"].shape[1:])


def of_batch(
    inputs: Inputs, augmentations: Mapping[str, Any], batch: Batch, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(global views [v, b, h, w, c], others by name), augmented and normalised.

    Args:
      inputs: have the augmentations of views that have none of their own.
      augmentations: of `checked`; where a name has fewer lists than views, they take turns.
      batch: has `image`, or `views_global` and perhaps others.
      key: of all chance.

    Raises:
      UserError: there are fewer than two global views, or no views of a name with augmentations.
    """
    found = {name: views for name, views in batch.items() if name.startswith(_PREFIX)}
    if not found:
        found = {GLOBAL: jnp.stack([batch["image"]] * 2, 1)}
    if GLOBAL not in found or found[GLOBAL].shape[1] < 2:
        raise UserError("The transform `views` must make two or more views named 'global'.")
    names = [name.removeprefix(_PREFIX) for name in found]
    for name in augmentations:
        if name not in names:
            raise unknown("view in pretraining.augment", name, names)
    ready = {}
    for index, (name, views) in enumerate(sorted(found.items())):
        lists = augmentations.get(name.removeprefix(_PREFIX), (inputs.augmentations,))
        of_name = jax.random.fold_in(key, index)
        parts = []
        for turn, own in enumerate(lists):
            rows = views[:, turn :: len(lists)].swapaxes(0, 1)
            own_key = of_name if len(lists) == 1 else jax.random.fold_in(of_name, turn)
            images = inputs.replaced(own).train({"image": as_batch(rows)}, own_key)["image"]
            parts.append(as_views(images, len(rows)))
        ready[name] = _interleaved(parts)
    return ready.pop(GLOBAL), ready


def _interleaved(parts: Sequence[jax.Array]) -> jax.Array:
    """What was taken in turns, in its old order."""
    if len(parts) == 1:
        return parts[0]
    count = sum(map(len, parts))
    return jnp.stack([parts[place % len(parts)][place // len(parts)] for place in range(count)])
