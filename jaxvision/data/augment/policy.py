"""The list of augmentations that a configuration gives as plain data, applied to a batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.data import options
from jaxvision.data.augment import color, geometric, joint, mix
from jaxvision.data.augment.color import Key
from jaxvision.data.augment.rand_augment import MAGNITUDES, rand_augment
from jaxvision.errors import UserError
from jaxvision.registry import Registry

if TYPE_CHECKING:
    from jaxvision.data.annotations import Kind


AugmentationKind = Literal["image", "geometric", "joint", "mix"]


class Augmentation:
    """A registered augmentation.

    Attributes:
      function: with keyword-only parameters after `(key, images)`, `(key, shape)` or
        `(key, images, label_probs)`.
      kind: "image" gives images; "geometric" a `Motion`, which annotations follow; "joint" a
        `Joint`, alike; "mix" images and the distributions of their classes.
      carries: whether annotations with a place on the image stay right.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        kind: AugmentationKind = "image",
        carries: bool = True,
    ):
        # A registry tells parts apart by where they were defined.
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        self.function, self.kind, self.carries = function, kind, carries and kind != "mix"


AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation",
    {
        "rand_augment": Augmentation(rand_augment, carries=False),
        "random_blur": Augmentation(color.random_blur),
        "random_color_jitter": Augmentation(color.random_color_jitter),
        "random_erasing": Augmentation(mix.random_erasing),
        "random_greyscale": Augmentation(color.random_greyscale),
        "random_posterize": Augmentation(color.random_posterize),
        "random_solarize": Augmentation(color.random_solarize),
        **{name: Augmentation(draw, "geometric") for name, draw in geometric.DRAWS.items()},
        **{name: Augmentation(draw, "joint") for name, draw in joint.JOINTS.items()},
        "cutmix": Augmentation(mix.cutmix, "mix"),
        "mixup": Augmentation(mix.mixup, "mix"),
        "mixup_or_cutmix": Augmentation(mix.mixup_or_cutmix, "mix"),
    },
)


def register(
    name: str, kind: AugmentationKind = "image"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that makes the function below it the augmentation `name`; see `Augmentation`."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        AUGMENTATIONS.add(name, Augmentation(function, kind))
        return function

    return enter


def normalize(
    images: Float[Array, "b *size c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "b *size c"]:
    """(images - mean) / std; one mean and one std for each channel, or one of each for all."""
    return (images - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def names() -> list[str]:
    """The augmentations that `augment` knows."""
    return sorted(AUGMENTATIONS)


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters that have a default."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _typed(name: str, parameter: str, value: Any, default: Any) -> Any:
    """The value in the type of the parameter's default: 10 for 10.0, a list for a tuple."""
    if default is None or (parameter == "value" and value == "random"):
        return value
    number, kind = (int, float), type(default)
    expected = f"{len(default)} numbers" if kind is tuple else kind.__name__
    if kind is tuple:
        several = isinstance(value, Sequence) and len(value) == len(default)
        if several and all(isinstance(part, number) for part in value):
            return tuple(float(part) for part in value)
    elif kind is str:
        if isinstance(value, str):
            return value
    elif isinstance(value, number) and kind(value) == value:
        return kind(value)
    raise UserError(
        f"Augmentation {name!r}: {parameter} is {value!r}; "
        f"expected {expected}, such as {default!r}."
    )


def _parse(augmentations: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    parsed = []
    for position, entry in enumerate(augmentations):
        if "name" not in entry:
            raise UserError(f"Augmentation {position} has no 'name': {dict(entry)!r}.")
        name = entry["name"]
        function = AUGMENTATIONS[name].function
        given = {k: v for k, v in entry.items() if k != "name"}
        options.check(f"augmentation {name!r}:", "parameter", function, given)
        defaults, parameters = _defaults(function), {}
        for parameter, value in given.items():
            parameters[parameter] = _typed(name, parameter, value, defaults.get(parameter))
            limit = {"probability": 1, "switch": 1, "magnitude": MAGNITUDES - 1}.get(parameter)
            if limit is not None and not 0 <= value <= limit:
                raise UserError(
                    f"Augmentation {name!r}: {parameter} is {value!r}; expected 0 to {limit}."
                )
        parsed.append((name, parameters))
    return parsed


def validate(augmentations: Sequence[Mapping[str, Any]]) -> None:
    """Checks a list of augmentations before anything is run.

    Raises:
      UserError: an entry without a name, an unknown name or parameter, a value of another type than
        the parameter's default, a probability outside 0 to 1 or a magnitude outside 0 to 30.
    """
    _parse(augmentations)


def augment(
    key: Key,
    batch: Mapping[str, Array],
    augmentations: Sequence[Mapping[str, Any]],
    num_classes: int | None = None,
    keypoint_order: Sequence[int] | None = None,
) -> dict[str, Array]:
    """Applies a list of augmentations to a batch, in order.

    An entry is `{"name": ..., parameter: value, ...}`, for example
    `[{"name": "flip_horizontal"}, {"name": "random_affine", "degrees": 10.0}]`; its parameters are
    the keyword arguments of the function of that name. The key of an entry is folded in from its
    position, so another one at the end changes nothing before it.

    The geometric ones also move every annotation that has a place, as its kind says
    (`jaxvision.data.annotations`). Flips of key points need `keypoint_order`. Those that join the
    images of a batch unite their objects. `mixup` and `cutmix` replace `label` [b] by `label_probs`
    [b, k].

    Args:
      key: random key; split it for each step.
      batch: arrays by name, as the loader makes them: `image` is uint8, or float from 0 to 1.
      augmentations: static plain data.
      num_classes: k; needed by mixup and cutmix.
      keypoint_order: the permutation that exchanges left and right key points (`[0, 2, 1]`, say),
        where an entry gives none of its own.

    Returns:
      A new batch with float images.

    Raises:
      UserError: what `validate` finds, or an entry that does not suit the batch.
    """
    parsed = _parse(augmentations)
    batch = dict(batch)
    if batch["image"].dtype == jnp.uint8:
        batch["image"] = color.to_float(batch["image"])
    for position, (name, parameters) in enumerate(parsed):
        entry_key = jax.random.fold_in(key, position)
        augmentation = AUGMENTATIONS[name]
        function, image = augmentation.function, batch["image"]
        if not augmentation.carries:
            _check_unplaced(batch, name)
        if augmentation.kind == "geometric":
            motion = function(entry_key, image.shape, **parameters)
            if motion.keypoint_order is None and keypoint_order:
                motion = replace(motion, keypoint_order=tuple(keypoint_order))
            moved = {"image": motion.images(image)}
            for kind in _kinds_in(batch):
                moved |= kind.move_on_device(batch, motion)
            batch |= moved
        elif augmentation.kind == "joint":
            drawn = function(entry_key, image.shape, **parameters)
            joined = {"image": drawn.images(image)}
            for kind in _joinable(batch, name):
                joined |= kind.join_on_device(batch, drawn)
            batch |= joined
        elif augmentation.kind == "mix":
            if "label_probs" not in batch:
                _mixable(batch, name, num_classes)
            batch["image"], batch["label_probs"] = function(
                entry_key, image, batch["label_probs"], **parameters
            )
        else:
            batch["image"] = function(entry_key, image, **parameters)
    return batch


def _kinds_in(batch: Mapping[str, Array]) -> "tuple[Kind, ...]":
    """The kinds of annotations of which a batch has something."""
    # Imported late: annotations bring their decoders, and a step without augmentation runs on
    # machines that lack the packages of these.
    from jaxvision.data.annotations import in_batch

    return in_batch(batch)


def _check_unplaced(batch: Mapping[str, Array], name: str) -> None:
    """Raises:
    UserError: the batch has annotations that `name` would leave behind.
    """
    kinds = [kind for kind in _kinds_in(batch) if kind.placed]
    if kinds:
        left = ", ".join(key for kind in kinds for key in kind.batch_keys if key in batch)
        raise UserError(
            f"Augmentation {name!r} does not carry along {left}; it is for classification only."
        )


def _joinable(batch: Mapping[str, Array], name: str) -> "tuple[Kind, ...]":
    """The kinds of which a batch has something.

    Raises:
      UserError: one of them cannot be made one of those of several images.
    """
    kinds = _kinds_in(batch)
    left = [key for kind in kinds if not kind.joins for key in kind.batch_keys if key in batch]
    if left:
        raise UserError(
            f"Augmentation {name!r} makes one image of several, and cannot do so with "
            f"{', '.join(left)}; it is for boxes."
        )
    return kinds


def _mixable(batch: dict[str, Array], name: str, num_classes: int | None) -> None:
    """Puts `label_probs` in the place of the annotation that says which classes images are of.

    Raises:
      UserError: there is none, or the number of classes is not known.
    """
    if num_classes is None:
        raise UserError(f"Augmentation {name!r} needs num_classes.")
    for kind in _kinds_in(batch):
        shares = kind.class_shares(batch, num_classes)
        if shares is not None:
            for key in kind.batch_keys:
                batch.pop(key, None)
            batch["label_probs"] = shares
            return
    raise UserError(f"Augmentation {name!r} needs a batch with 'label' or 'labels'.")
