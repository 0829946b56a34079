import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
from PIL import Image, ImageEnhance, ImageOps

from jaxvision.data.augment import color

FACTORS = jnp.array([0.0, 0.6, 1.7])


def levels(images) -> np.ndarray:
    return np.asarray(images) * 255


def pillow(photos, function) -> np.ndarray:
    """`function(image, index)` of each photograph by Pillow."""
    return np.stack(
        [np.asarray(function(Image.fromarray(photo), i)) for i, photo in enumerate(photos)]
    ).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color.adjust_brightness, ImageEnhance.Brightness),
        (color.adjust_contrast, ImageEnhance.Contrast),
        (color.adjust_saturation, ImageEnhance.Color),
        (color.adjust_sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_equal_pillow(photos, images, ours, theirs):
    expected = pillow(photos, lambda image, i: theirs(image).enhance(float(FACTORS[i])))
    changed = jax.jit(ours)(images, FACTORS)
    np.testing.assert_allclose(levels(changed), expected, atol=2.01)
    np.testing.assert_array_equal(jax.jit(ours)(images, jnp.ones(3)), images)
    one_for_all = ours(images, 0.6)
    np.testing.assert_allclose(one_for_all[1], changed[1], atol=1e-6)


def test_greyscale_invert_and_autocontrast_equal_pillow(photos, images):
    grey = pillow(photos, lambda image, _: ImageOps.grayscale(image))[..., None]
    np.testing.assert_allclose(levels(color.to_greyscale(images)), np.repeat(grey, 3, -1), atol=1)
    inverted = pillow(photos, lambda image, _: ImageOps.invert(image))
    np.testing.assert_allclose(levels(color.invert(images)), inverted, atol=1e-3)
    faint = photos // 2 + 40
    stretched = pillow(faint, lambda image, _: ImageOps.autocontrast(image))
    ours = color.autocontrast(color.to_float(jnp.asarray(faint)))
    np.testing.assert_allclose(levels(ours), stretched, atol=1.01)
    flat = jnp.full((1, 4, 4, 3), 0.3)
    np.testing.assert_array_equal(color.autocontrast(flat), flat)


def test_solarize_and_posterize_equal_pillow_exactly(photos, images):
    thresholds = [0, 128, 255]
    expected = pillow(photos, lambda image, i: ImageOps.solarize(image, thresholds[i]))
    ours = color.solarize(images, jnp.array(thresholds) / 255)
    np.testing.assert_allclose(levels(ours), expected, atol=1e-3)
    bits = [8, 4, 1]
    expected = pillow(photos, lambda image, i: ImageOps.posterize(image, bits[i]))
    ours = color.posterize(images, jnp.array(bits, jnp.float32))
    np.testing.assert_allclose(levels(ours), expected, atol=1e-3)


def test_equalize_equals_pillow_exactly(photos, images):
    expected = pillow(photos, lambda image, _: ImageOps.equalize(image))
    np.testing.assert_allclose(levels(jax.jit(color.equalize)(images)), expected, atol=1e-3)
    two = np.zeros((1, 8, 8, 3), np.uint8)  # so few pixels that Pillow's step is 0
    two[:, :4] = 200
    expected = pillow(two, lambda image, _: ImageOps.equalize(image))
    np.testing.assert_allclose(
        levels(color.equalize(color.to_float(jnp.asarray(two)))), expected, atol=1e-3
    )


def test_hue_equals_scikit_image(photos, images):
    turns = [-0.4, 0.0, 0.25]
    ours = np.asarray(jax.jit(color.adjust_hue)(images, jnp.array(turns)))
    for index, turn in enumerate(turns):
        hsv = skimage.color.rgb2hsv(photos[index])
        hsv[..., 0] = (hsv[..., 0] + turn) % 1
        np.testing.assert_allclose(ours[index], skimage.color.hsv2rgb(hsv), atol=1e-4)
    np.testing.assert_array_equal(ours[1], images[1])


def test_blur_equals_opencv(photos, images):
    sigmas = jnp.array([0.0, 0.8, 2.5])
    ours = np.asarray(jax.jit(color.gaussian_blur, static_argnums=2)(images, sigmas, 5))
    np.testing.assert_array_equal(ours[0], images[0])
    for index in (1, 2):
        expected = cv2.GaussianBlur(np.asarray(images[index]), (11, 11), float(sigmas[index]))
        np.testing.assert_allclose(ours[index], expected, atol=1e-5)


def test_one_channel(images):
    grey = images[..., :1]
    for function in (color.adjust_saturation, color.adjust_hue):
        np.testing.assert_array_equal(function(grey, FACTORS), grey)
    np.testing.assert_array_equal(color.to_greyscale(grey), grey)
    for changed in (
        color.adjust_brightness(grey, FACTORS),
        color.adjust_contrast(grey, FACTORS),
        color.adjust_sharpness(grey, FACTORS),
        color.equalize(grey),
        color.autocontrast(grey),
    ):
        assert changed.shape == grey.shape
        assert np.isfinite(changed).all()


def test_to_float(photos, images):
    floats = color.to_float(jnp.asarray(photos))
    assert floats.dtype == jnp.float32
    np.testing.assert_allclose(floats, images, atol=1e-7)


def jitter(key, images):
    return color.random_color_jitter(
        key, images, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8
    )


@pytest.mark.parametrize(
    ("function", "probability"),
    [
        (jitter, 0.8),
        (lambda k, x: color.random_greyscale(k, x, probability=0.3), 0.3),
        (lambda k, x: color.random_blur(k, x, sigma=(0.5, 1.0), probability=0.5), 0.5),
        (lambda k, x: color.random_solarize(k, x, threshold=0.0, probability=0.4), 0.4),
        (lambda k, x: color.random_posterize(k, x, bits=1, probability=0.6), 0.6),
    ],
)
def test_random_ones_follow_key_and_probability(many, function, probability):
    function = jax.jit(function)
    first = function(jax.random.key(0), many)
    np.testing.assert_array_equal(first, function(jax.random.key(0), many))
    assert (first != function(jax.random.key(1), many)).any()
    assert first.shape == many.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    changed = (np.abs(first - many) > 1e-6).any((1, 2, 3)).mean()
    # Four standard deviations of a mean of 2,000.
    assert abs(changed - probability) < 4 * (probability * (1 - probability) / 2000) ** 0.5


def test_jitter_draws_factors_uniformly_and_orders_at_random(many, images):
    factor = jax.jit(lambda k: color.random_color_jitter(k, many * 0.5, brightness=0.3))(
        jax.random.key(2)
    )
    ratio = np.asarray(factor.mean((1, 2, 3)) / (many * 0.5).mean((1, 2, 3)))
    assert 0.7 <= ratio.min() < 0.71
    assert 1.29 < ratio.max() <= 1.301
    assert abs(ratio.mean() - 1) < 0.02
    key = jax.random.key(0)
    np.testing.assert_array_equal(color.random_color_jitter(key, images), images)
    # Of strengths that leave no choice but the order, several outcomes are seen.
    flat = jnp.broadcast_to(images[:1], (1, 48, 64, 3))
    strong = jax.jit(lambda k: color.random_color_jitter(k, flat, contrast=1.0, saturation=1.0))
    outcomes = {np.asarray(strong(jax.random.key(i))).tobytes() for i in range(4)}
    assert len(outcomes) == 4
