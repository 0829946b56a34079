import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxvision.data.augment import mix

CLASSES = 5


@pytest.fixture(scope="module")
def constant():
    """Images whose every pixel is the image's own number, and labels that tell it."""
    number = jnp.arange(CLASSES, dtype=jnp.float32)
    return jnp.broadcast_to(number[:, None, None, None], (CLASSES, 16, 24, 3)), jnp.eye(CLASSES)


@pytest.mark.parametrize("function", [mix.mixup, mix.cutmix])
def test_labels_keep_their_mass_and_tell_what_is_seen(constant, function):
    images, labels = constant
    function = jax.jit(functools.partial(function, alpha=1.0))
    for seed in range(5):
        mixed, mixed_labels = function(jax.random.key(seed), images, labels)
        np.testing.assert_allclose(mixed_labels.sum(-1), 1, atol=1e-6)
        assert (mixed_labels >= 0).all()
        # The mean pixel is the expectation of the label: exact area for CutMix.
        expected = mixed_labels @ np.arange(CLASSES)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), expected, atol=1e-5)
        np.testing.assert_array_equal(mixed, function(jax.random.key(seed), images, labels)[0])


def test_cutmix_pastes_one_rectangle(constant):
    images, labels = constant
    for seed in range(5):
        mixed, _ = mix.cutmix(jax.random.key(seed), images, labels, alpha=1.0)
        pasted = np.asarray(mixed != images).any(-1)
        for one in pasted:
            rows, columns = np.nonzero(one.any(1))[0], np.nonzero(one.any(0))[0]
            assert one.sum() == len(rows) * len(columns)
            if len(rows):
                assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_weights_are_beta(alpha):
    labels = jnp.eye(2)[jnp.arange(2000) % 2]
    images = jnp.zeros((2000, 1, 1, 1))
    _, mixed = mix.mixup(jax.random.key(0), images, labels, alpha=alpha)
    weights = np.asarray((mixed * labels).sum(-1))
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_alpha_zero_is_the_identity(constant):
    for function in (mix.mixup, mix.cutmix):
        for before, after in zip(
            constant, function(jax.random.key(0), *constant, alpha=0.0), strict=True
        ):
            np.testing.assert_array_equal(before, after)


def test_erasing_statistics():
    images = jnp.ones((1000, 32, 32, 1))
    erase = jax.jit(
        functools.partial(mix.random_erasing, probability=0.7, area=(0.1, 0.3), aspect=(0.5, 2.0))
    )
    out = np.asarray(erase(jax.random.key(0), images))[..., 0] == 0
    erased = out.any((1, 2))
    assert abs(erased.mean() - 0.7) < 0.06
    area = out[erased].mean((1, 2))
    assert area.min() > 0.085
    assert area.max() < 0.32
    assert abs(area.mean() - 0.2) < 0.01
    height = out[erased].any(2).sum(1)
    width = out[erased].any(1).sum(1)
    np.testing.assert_array_equal(height * width, out[erased].sum((1, 2)))
    ratio = height / width
    assert 0.4 < ratio.min() < 0.6
    assert 1.7 < ratio.max() < 2.4
    assert abs(np.log(ratio).mean()) < 0.05
    # Every place is reached.
    assert out.any(0).all()


def test_erasing_values_and_identity(images):
    key = jax.random.key(0)
    np.testing.assert_array_equal(mix.random_erasing(key, images, probability=0.0), images)
    tall = mix.random_erasing(key, images, probability=1.0, area=(0.9, 1.0), aspect=(9.0, 10.0))
    np.testing.assert_array_equal(tall, images)  # nothing of that form fits
    noise = np.asarray(mix.random_erasing(key, images, probability=1.0, value="random"))
    changed = (noise != np.asarray(images)).any(-1)
    assert changed.any((1, 2)).all()
    assert noise[changed].std() > 0.2


@pytest.mark.parametrize(("switch", "expected"), [(0.0, mix.mixup), (1.0, mix.cutmix)])
def test_mixup_or_cutmix_is_one_of_them(switch, expected):
    images = jax.random.uniform(jax.random.key(3), (4, 8, 6, 2))
    labels = jnp.eye(4)
    key = jax.random.key(5)
    ours = mix.mixup_or_cutmix(key, images, labels, mixup_alpha=0.8, switch=switch)
    theirs = expected(jax.random.split(key)[1], images, labels, alpha=1.0 if switch else 0.8)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, 1e-6)
