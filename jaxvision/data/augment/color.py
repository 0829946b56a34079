"""Colour, tone and blur, with the semantics of Pillow's ImageEnhance and ImageOps.

The deterministic functions take one factor for all images or one for each ([b]); the random ones
draw one for each image. Values are not rounded to 8 bits between operations, so results equal
Pillow's to one or two levels of 255. On images of one channel, `adjust_saturation`, `adjust_hue`
and `to_greyscale` are the identity: a grey image has no colour to change.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8, UInt32

Images = Float[Array, "b h w c"]
Factor = Float[Array, " b"] | float
Key = PRNGKeyArray | UInt32[Array, "2"]


def to_float(images: UInt8[Array, "b *size c"]) -> Float[Array, "b *size c"]:
    """0 to 255 becomes 0 to 1."""
    return images.astype(jnp.float32) / 255


def per_image(factor: Factor) -> Array:
    """One number, or [b], in a shape that broadcasts against images."""
    factor = jnp.asarray(factor, jnp.float32)
    return factor.reshape(*factor.shape, 1, 1, 1) if factor.ndim else factor


def choose(
    chosen: Bool[Array, " b"], changed: Float[Array, "#b #h #w #c"], images: Images
) -> Images:
    """`changed` for the chosen images, the others untouched."""
    return jnp.where(chosen[:, None, None, None], changed, images)


def blend(degenerate: Array, images: Images, factor: Factor) -> Images:
    """`PIL.Image.blend`: from degenerate (0) over the images (1) to beyond (> 1), clipped."""
    factor = per_image(factor)
    # Written so that a factor of 1 gives back the images exactly.
    return jnp.clip(factor * images + (1 - factor) * degenerate, 0.0, 1.0)


def luma(images: Images) -> Float[Array, "b h w 1"]:
    """ITU-R 601-2 luma, Pillow's mode L; one channel is returned as it is."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def adjust_brightness(images: Images, factor: Factor) -> Images:
    """0 is black, 1 the image (`ImageEnhance.Brightness`)."""
    return blend(jnp.zeros((), images.dtype), images, factor)


def mean_grey(images: Images) -> Float[Array, "b 1 1 1"]:
    """The mean luma of each image."""
    return luma(images).mean((1, 2, 3), keepdims=True)


def adjust_contrast(images: Images, factor: Factor) -> Images:
    """0 is the mean grey of the image, 1 the image (`ImageEnhance.Contrast`)."""
    return blend(mean_grey(images), images, factor)


def adjust_saturation(images: Images, factor: Factor) -> Images:
    """0 is the grey image, 1 the image (`ImageEnhance.Color`)."""
    if images.shape[-1] == 1:
        return images
    return blend(luma(images), images, factor)


def smooth(images: Images) -> Images:
    """A weak 3x3 blur; the border stays as it is (`ImageFilter.SMOOTH`)."""
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images
    window = sum(
        images[:, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)
    )
    return images.at[:, 1:-1, 1:-1].set((window + 4 * images[:, 1:-1, 1:-1]) / 13)


def adjust_sharpness(images: Images, factor: Factor) -> Images:
    """0 is smooth, 1 the image, 2 sharp (`ImageEnhance.Sharpness`)."""
    return blend(smooth(images), images, factor)


def adjust_hue(images: Images, turn: Factor) -> Images:
    """Turns the hue by a fraction of the circle, -0.5 to 0.5; HSV value and saturation stay.

    Equals a shift in `skimage.color.rgb2hsv`, and torchvision's `adjust_hue` on tensors. (On
    Pillow images, torchvision rounds hue to 8 bits.)
    """
    if images.shape[-1] == 1:
        return images
    red, green, blue = jnp.moveaxis(images, -1, 0)
    value, least = images.max(-1), images.min(-1)
    chroma = value - least
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = hue[..., None] + 6 * per_image(turn)
    # Back from HSV without branches: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    k = (jnp.array([5.0, 3.0, 1.0]) + turned) % 6
    out = value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)
    return jnp.where(per_image(turn) == 0, images, jnp.clip(out, 0.0, 1.0))


def to_greyscale(images: Images) -> Images:
    """Luma in every channel (`ImageOps.grayscale`, with the channels kept)."""
    return jnp.broadcast_to(luma(images), images.shape)


def gaussian_blur(images: Images, sigma: Factor, radius: int) -> Images:
    """Separable Gaussian of 2 `radius` + 1 taps; sigma in pixels, 0 is the identity.

    Equals `cv2.GaussianBlur` with that kernel size and its default border (reflection without
    repeating the edge), as torchvision's `gaussian_blur` does. `radius` is static and must be less
    than height and width; 3 sigma leaves out 0.3 % of the weight.
    """
    offset = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    sigma = jnp.maximum(jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), images.shape[:1]), 1e-6)
    weight = jnp.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    weight = (weight / weight.sum(-1, keepdims=True))[:, :, None, None, None]
    # Shifted sums rather than a convolution: every image has a kernel of its own.
    for axis in (1, 2):
        length = images.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (radius, radius)
        padded = jnp.pad(images, padding, mode="reflect")
        images = jnp.zeros_like(images)
        for tap in range(2 * radius + 1):
            shifted = jax.lax.slice_in_dim(padded, tap, tap + length, axis=axis)
            images += weight[:, tap] * shifted
    return images


def invert(images: Images) -> Images:
    """The negative (`ImageOps.invert`)."""
    return 1 - images


def solarize(images: Images, threshold: Factor) -> Images:
    """Inverts what is at or above the threshold, 0 to 1 (`ImageOps.solarize`)."""
    # A quarter of a level of tolerance: in 8 bits, "at" the threshold is no matter of rounding.
    return jnp.where(images < per_image(threshold) - 0.25 / 255, images, 1 - images)


def posterize(images: Images, bits: Factor) -> Images:
    """Keeps the leading `bits` (1 to 8) of each value in 8 bits (`ImageOps.posterize`)."""
    step = 2.0 ** (8 - per_image(bits))
    return jnp.floor(jnp.round(images * 255) / step) * step / 255


def autocontrast(images: Images) -> Images:
    """Stretches each channel to 0 to 1 (`ImageOps.autocontrast`); a flat one stays."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    # What spans less than half a level of 255 counts as flat.
    flat = high - low < 0.5 / 255
    return jnp.where(flat, images, (images - low) / jnp.where(flat, 1.0, high - low))


def equalize(images: Images) -> Images:
    """Flattens the histogram of each channel in 8 bits (`ImageOps.equalize`)."""
    batch, height, width, channels = images.shape
    levels = jnp.round(images * 255).astype(jnp.int32)

    def lookup(values: Array) -> Array:
        histogram = jnp.zeros(256, jnp.int32).at[values.ravel()].add(1)
        # Pillow's: the last level in use does not count for the step.
        step = (height * width - histogram[values.max()]) // 255
        before = jnp.cumsum(histogram) - histogram
        table = jnp.clip((step // 2 + before) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step == 0, values, table[values])

    planes = jnp.moveaxis(levels, -1, 1).reshape(batch * channels, height, width)
    equal = jax.vmap(lookup)(planes).reshape(batch, channels, height, width)
    return jnp.moveaxis(equal, 1, -1).astype(images.dtype) / 255


def random_color_jitter(
    key: Key,
    images: Images,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> Images:
    """Random brightness, contrast, saturation and hue, in a random order.

    Factors are uniform in [max(0, 1 - x), 1 + x] and the hue's turn in [-hue, hue], drawn for each
    image as in torchvision's `ColorJitter`. The order is drawn once for the batch: one for each
    image would cost every operation in every place. Strengths of 0 cost nothing.
    """
    keys = jax.random.split(key, 6)
    batch = images.shape[:1]

    def factor(key: Array, strength: float) -> Array:
        low, high = max(0.0, 1 - strength), 1 + strength
        return jax.random.uniform(key, batch, minval=low, maxval=high)

    operations: list[Callable[[Images], Images]] = []
    if brightness:
        by_brightness = factor(keys[0], brightness)
        operations.append(lambda x: adjust_brightness(x, by_brightness))
    if contrast:
        by_contrast = factor(keys[1], contrast)
        operations.append(lambda x: adjust_contrast(x, by_contrast))
    if saturation:
        by_saturation = factor(keys[2], saturation)
        operations.append(lambda x: adjust_saturation(x, by_saturation))
    if hue:
        turn = jax.random.uniform(keys[3], batch, minval=-hue, maxval=hue)
        operations.append(lambda x: adjust_hue(x, turn))
    if not operations:
        return images
    order = jax.random.permutation(keys[4], len(operations))
    jittered = images
    for position in range(len(operations)):
        jittered = jax.lax.switch(order[position], operations, jittered)
    return choose(jax.random.bernoulli(keys[5], probability, batch), jittered, images)


def random_greyscale(key: Key, images: Images, *, probability: float = 0.1) -> Images:
    """Some images without their colour."""
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    return choose(chosen, to_greyscale(images), images)


def random_blur(
    key: Key, images: Images, *, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 0.5
) -> Images:
    """Gaussian blur, sigma uniform in pixels (as in SimCLR, 2020, https://arxiv.org/abs/2002.05709)."""
    coin, amount = jax.random.split(key)
    low, high = sigma
    radius = min(math.ceil(3 * high), min(images.shape[1:3]) - 1)
    each = jax.random.uniform(amount, images.shape[:1], minval=low, maxval=high)
    chosen = jax.random.bernoulli(coin, probability, images.shape[:1])
    return choose(chosen, gaussian_blur(images, each, radius), images)


def random_solarize(
    key: Key, images: Images, *, threshold: float = 0.5, probability: float = 0.2
) -> Images:
    """Some images solarized (as in BYOL, 2020, https://arxiv.org/abs/2006.07733)."""
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    return choose(chosen, solarize(images, threshold), images)


def random_posterize(
    key: Key, images: Images, *, bits: int = 4, probability: float = 0.2
) -> Images:
    """Some images posterized."""
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    return choose(chosen, posterize(images, float(bits)), images)
