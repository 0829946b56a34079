"""RandAugment: random operations of one magnitude, as torchvision has them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.data.augment import color
from jaxvision.data.augment.color import Images, Key
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
    images: Images, operation: Int[Array, " b"], strength: Float[Array, " b"]
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
