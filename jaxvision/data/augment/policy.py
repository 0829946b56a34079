"""RandAugment, normalisation, and the list of augmentations that a config gives as plain data."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.data.augment import color, geometric, mix
from jaxvision.data.augment.color import Images, Key
from jaxvision.errors import UserError, unknown
from jaxvision.ops import geometry

# torchvision's, in its order.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
MAGNITUDES = 31  # RandAugment's magnitude is one of 0 to 30


def normalize(
    images: Float[Array, "b *size c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "b *size c"]:
    """(images - mean) / std; one mean and one std for each channel, or one of each for all."""
    return (images - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def strengths(magnitude: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What a magnitude means for each of `OPERATIONS`: (strength, whether its sign is random).

    Shears are fractions, translations pixels, rotation degrees, the four enhancements the
    distance of their factor from 1, posterize bits and solarize a threshold.
    """
    part = magnitude / (MAGNITUDES - 1)
    signed = {
        "shear_x": 0.3 * part,
        "shear_y": 0.3 * part,
        "translate_x": 150 / 331 * width * part,
        "translate_y": 150 / 331 * height * part,
        "rotate": 30 * part,
        "brightness": 0.9 * part,
        "color": 0.9 * part,
        "contrast": 0.9 * part,
        "sharpness": 0.9 * part,
    }
    unsigned = {"posterize": 8 - round(4 * part), "solarize": 1 - part}
    table = np.array([(signed | unsigned).get(name, 0.0) for name in OPERATIONS], np.float32)
    return table, np.array([name in signed for name in OPERATIONS])


def apply_operation(
    images: Images, operation: Int[Array, "b"], strength: Float[Array, "b"]
) -> Images:
    """Applies to each image one of `OPERATIONS`, with the strength in its unit (`strengths`).

    Every image passes one warp, one blend and the tone curves, and keeps the one it asked for.
    A `lax.switch` on each image would become this as well under `vmap`, with fourteen branches
    in the place of these six. Pixels from outside are black; interpolation is bilinear
    (torchvision's default is nearest).
    """
    height, width = images.shape[1:3]

    def of(name: str) -> Array:
        return operation == OPERATIONS.index(name)

    def when(name: str, otherwise: float = 0.0) -> Array:
        return jnp.where(of(name), strength, otherwise)

    degrees = [jnp.rad2deg(jnp.arctan(when(name))) for name in ("shear_x", "shear_y")]
    about_corner = geometry.affine_matrix(
        (0.0, 0.0),
        shear=(degrees[0], degrees[1]),
        translation=(when("translate_x"), when("translate_y")),
    )
    about_centre = geometry.affine_matrix((width / 2, height / 2), degrees=-when("rotate"))
    matrix = jnp.where(of("rotate")[:, None, None], about_centre, about_corner)
    moves = of("shear_x") | of("shear_y") | of("translate_x") | of("translate_y") | of("rotate")
    out = color.choose(moves, geometry.warp_images(images, matrix), images)

    degenerate = color.choose(of("contrast"), color.mean_grey(images), jnp.zeros_like(images))
    degenerate = color.choose(of("color"), color.luma(images), degenerate)
    degenerate = color.choose(of("sharpness"), color.smooth(images), degenerate)
    blends = of("brightness") | of("color") | of("contrast") | of("sharpness")
    out = color.choose(blends, color.blend(degenerate, images, 1 + strength), out)

    out = color.choose(of("posterize"), color.posterize(images, when("posterize", 8.0)), out)
    out = color.choose(of("solarize"), color.solarize(images, strength), out)
    out = color.choose(of("autocontrast"), color.autocontrast(images), out)
    return color.choose(of("equalize"), color.equalize(images), out)


def rand_augment(key: Key, images: Images, *, num_ops: int = 2, magnitude: int = 9) -> Images:
    """Applies `num_ops` random operations of equal magnitude to each image.

    Cubuk et al., 2020, https://arxiv.org/abs/1909.13719; operations, ranges and signs as in
    torchvision's `RandAugment` with its 31 magnitude bins, drawn for each image.

    Args:
      key: random key.
      images: [b, h, w, c], 0 to 1.
      num_ops: operations applied one after the other.
      magnitude: 0 to 30.
    """
    strength, signed = map(jnp.asarray, strengths(magnitude, *images.shape[1:3]))
    for step in range(num_ops):
        which, sign = jax.random.split(jax.random.fold_in(key, step))
        operation = jax.random.randint(which, images.shape[:1], 0, len(OPERATIONS))
        negative = jax.random.bernoulli(sign, 0.5, images.shape[:1]) & signed[operation]
        images = apply_operation(
            images, operation, jnp.where(negative, -1.0, 1.0) * strength[operation]
        )
    return images


_IMAGE: dict[str, Callable] = {
    "rand_augment": rand_augment,
    "random_blur": color.random_blur,
    "random_color_jitter": color.random_color_jitter,
    "random_erasing": mix.random_erasing,
    "random_greyscale": color.random_greyscale,
    "random_posterize": color.random_posterize,
    "random_solarize": color.random_solarize,
}
_GEOMETRIC: dict[str, Callable] = {
    "flip_horizontal": geometric.flip_horizontal,
    "flip_vertical": geometric.flip_vertical,
    "random_affine": geometric.random_affine,
    "random_crop": geometric.random_crop,
}
_MIX: dict[str, Callable] = {
    "cutmix": mix.cutmix,
    "mixup": mix.mixup,
    "mixup_or_cutmix": mix.mixup_or_cutmix,
}
_ALL = _IMAGE | _GEOMETRIC | _MIX

# Annotations that only the geometric augmentations carry along.
_PLACED = ("segmentation", "boxes", "instance_masks", "keypoints")


def names() -> list[str]:
    """The augmentations that `augment` knows."""
    return sorted(_ALL)


def _parameters(name: str) -> dict[str, Any]:
    """The parameters of an augmentation and their defaults."""
    signature = inspect.signature(_ALL[name]).parameters.values()
    found = {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}
    if name.startswith("flip"):
        found["keypoint_order"] = None
    return found


def _typed(name: str, parameter: str, value: Any, default: Any) -> Any:
    """The value in the type of the parameter's default: 10 for 10.0, a list for a tuple."""
    if parameter == "keypoint_order" or (parameter == "value" and value == "random"):
        return value
    number, kind = (int, float), type(default)
    expected = f"{len(default)} numbers" if kind is tuple else kind.__name__
    if kind is tuple:
        several = isinstance(value, Sequence) and len(value) == len(default)
        if several and all(isinstance(part, number) for part in value):
            return tuple(float(part) for part in value)
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
        if name not in _ALL:
            raise unknown("augmentation", name, _ALL)
        defaults, parameters = _parameters(name), {}
        for parameter, value in entry.items():
            if parameter == "name":
                continue
            if parameter not in defaults:
                raise unknown(f"parameter of augmentation {name!r}:", parameter, defaults)
            parameters[parameter] = _typed(name, parameter, value, defaults[parameter])
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
) -> dict[str, Array]:
    """Applies a list of augmentations to a batch, in order.

    An entry is `{"name": ..., parameter: value, ...}`, for example
    `[{"name": "flip_horizontal"}, {"name": "random_affine", "degrees": 10.0}]`; its parameters are
    the keyword arguments of the function of that name. The key of an entry is folded in from its
    position, so another one at the end changes nothing before it.

    The geometric ones also move `segmentation`, `boxes`, `instance_masks` and `keypoints`. Boxes
    are clipped, one with no area left becomes invalid in `box_valid`, and a key point outside the
    image becomes invisible. Flips of key points need `keypoint_order`, the permutation that
    exchanges left and right ones (`[0, 2, 1]`, say). `mixup` and `cutmix` replace `label` [b] by
    `label_probs` [b, k].

    Args:
      key: random key; split it for each step.
      batch: arrays by name, as the loader makes them: `image` is uint8, or float from 0 to 1.
      augmentations: static plain data.
      num_classes: k; needed by mixup and cutmix.

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
        if name in _GEOMETRIC:
            batch = _move(entry_key, batch, name, parameters)
            continue
        placed = [annotation for annotation in _PLACED if annotation in batch]
        if placed and name in ("rand_augment", *_MIX):
            raise UserError(
                f"Augmentation {name!r} does not carry along {', '.join(placed)}; "
                "it is for classification only."
            )
        if name in _MIX:
            batch["image"], batch["label_probs"] = _MIX[name](
                entry_key, batch["image"], _label_probs(batch, name, num_classes), **parameters
            )
            batch.pop("label", None)
        else:
            batch["image"] = _IMAGE[name](entry_key, batch["image"], **parameters)
    return batch


def _label_probs(batch: dict[str, Array], name: str, num_classes: int | None) -> Array:
    if "label_probs" in batch:
        return batch["label_probs"]
    if num_classes is None or "label" not in batch:
        missing = "num_classes" if num_classes is None else "a batch with 'label'"
        raise UserError(f"Augmentation {name!r} needs {missing}.")
    return jax.nn.one_hot(batch["label"], num_classes, dtype=jnp.float32)


def _move(key: Key, batch: dict[str, Array], name: str, parameters: dict) -> dict[str, Array]:
    """One geometric augmentation of the image and of every annotation that has a place."""
    function, batch, parameters = _GEOMETRIC[name], dict(batch), dict(parameters)
    order = parameters.pop("keypoint_order", None)
    images = batch["image"]
    height, width = images.shape[1:3]
    # The geometry depends on the key alone, so each annotation may go its way by a call of its own;
    # images that nobody reads are never computed under jit.
    batch["image"], segmentation, boxes = function(
        key, images, batch.get("segmentation"), batch.get("boxes"), **parameters
    )
    if segmentation is not None:
        batch["segmentation"] = segmentation
    if boxes is not None:
        batch["boxes"] = geometry.clip_boxes(boxes, height, width)
        if "box_valid" in batch:
            sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
            batch["box_valid"] = batch["box_valid"] & (sides > 0).all(-1)
    if "instance_masks" in batch:
        fill = {} if name.startswith("flip") else {"mask_fill": 0}
        masks = jnp.moveaxis(batch["instance_masks"], 1, -1)
        _, masks, _ = function(key, images, masks, None, **(parameters | fill))
        batch["instance_masks"] = jnp.moveaxis(masks, -1, 1)
    if "keypoints" in batch:
        batch["keypoints"] = _move_keypoints(
            key, batch["keypoints"], images, name, order, parameters
        )
    return batch


def _move_keypoints(
    key: Key,
    keypoints: Float[Array, "b n k 3"],
    images: Images,
    name: str,
    order: Sequence[int] | None,
    parameters: dict,
) -> Float[Array, "b n k 3"]:
    height, width = images.shape[1:3]
    flat = keypoints.reshape(keypoints.shape[0], -1, 3)
    as_boxes = jnp.concatenate([flat[..., :2], flat[..., :2]], axis=-1)
    _, _, as_boxes = _GEOMETRIC[name](key, images, None, as_boxes, **parameters)
    inside = ((as_boxes[..., :2] >= 0) & (as_boxes[..., :2] < jnp.array([width, height]))).all(-1)
    visible = jnp.where(inside, flat[..., 2], 0.0)
    moved = jnp.concatenate([as_boxes[..., :2], visible[..., None]], axis=-1)
    moved = moved.reshape(keypoints.shape)
    if not name.startswith("flip"):
        return moved
    if order is None or sorted(order) != list(range(keypoints.shape[2])):
        raise UserError(
            f"Augmentation {name!r} of a batch with key points needs 'keypoint_order', the "
            f"permutation of 0 to {keypoints.shape[2] - 1} that exchanges left and right; "
            f"it is {order!r}."
        )
    # Only where the image was flipped: what a flip did to a probe tells.
    probe = jnp.zeros((keypoints.shape[0], 1, 4), keypoints.dtype)
    _, _, after = _GEOMETRIC[name](key, images, None, probe, **parameters)
    flipped = (after != probe).any((1, 2))
    return jnp.where(flipped[:, None, None, None], moved[:, :, jnp.array(order)], moved)
