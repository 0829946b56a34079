"""What an autoencoder pays for an image, and how its codes are measured."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.losses import (
    bernoulli_nll,
    free_nats,
    gaussian_kl,
    gaussian_nll,
    laplace_nll,
    logit_laplace_nll,
    map_pixels,
    uniform_kl,
    unmap_pixels,
)
from jaxvision.metrics import add, compute
from jaxvision.metrics.codes import ActiveUnits, CodeUsage

RNG = np.random.default_rng(0)


def test_nats_of_pixels():
    logits = jnp.asarray([[[0.0, 2.0], [-1.0, 30.0]]])
    pixels = jnp.asarray([[[0.5, 1.0], [0.25, 1.0]]])
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -(pixels * np.log(p) + (1 - pixels) * np.log1p(-p + 1e-30)).sum()
    np.testing.assert_allclose(bernoulli_nll(logits, pixels), [expected], 1e-5)
    mean, scale = jnp.asarray([[0.0, 1.0, 0.5]]), 0.25
    values = jnp.asarray([[0.5, 1.0, 0.25]])
    density = np.exp(-0.5 * (np.asarray(values - mean) / scale) ** 2) / scale / math.sqrt(2 * np.pi)
    found = gaussian_nll(mean, values, math.log(scale))
    np.testing.assert_allclose(found, [-np.log(density).sum()], 1e-5)


def test_nats_of_laplace_distributions():
    """Both are densities of pixels from 0 to 1; the second has no mass elsewhere."""
    values, scale = jnp.asarray([[0.5, 1.0, 0.25]]), 0.25
    found = laplace_nll(jnp.asarray([[0.0, 1.0, 0.5]]), values, math.log(scale))
    expected = np.abs(np.asarray([0.5, 0.0, -0.25])) / scale + np.log(2 * scale)
    np.testing.assert_allclose(found, [expected.sum()], 1e-5)
    pixels = jnp.linspace(0, 1, 20_001)
    mapped = map_pixels(pixels)
    assert (float(mapped[0]), float(mapped[-1])) == pytest.approx((0.1, 0.9))
    np.testing.assert_allclose(unmap_pixels(mapped), pixels, atol=1e-6)
    output = jnp.broadcast_to(jnp.asarray([0.4, -1.0]), (len(pixels), 1, 1, 2))
    density = np.exp(-np.asarray(logit_laplace_nll(output, pixels.reshape(-1, 1, 1, 1))))
    # The logits of 0.1 and 0.9 bound the Laplace distribution's mass.
    bound, width = np.log(9), np.exp(-1.0)
    outside = (np.exp((-bound - 0.4) / width) + np.exp((0.4 - bound) / width)) / 2
    assert np.trapezoid(density, pixels) == pytest.approx(1 - outside, rel=1e-4)


def test_divergence_from_the_uniform_distribution():
    logits = jnp.asarray([[[0.0, 0.0], [np.log(3.0), 0.0]], [[90.0, 0.0], [0.0, 90.0]]])
    once = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    np.testing.assert_allclose(uniform_kl(logits), [once, 2 * np.log(2)], 1e-5)


def test_divergence_from_the_prior():
    mean, variance = np.asarray([[0.0, 1.5]]), np.asarray([[1.0, 0.4]])
    found = gaussian_kl(jnp.asarray(mean, jnp.float32), jnp.log(jnp.asarray(variance, jnp.float32)))
    x = np.linspace(-12, 12, 200_001)
    q = np.exp(-0.5 * (x - 1.5) ** 2 / 0.4) / np.sqrt(2 * np.pi * 0.4)
    log_p = -0.5 * x**2 - 0.5 * np.log(2 * np.pi)
    expected = np.trapezoid(np.where(q > 0, q * (np.log(np.maximum(q, 1e-300)) - log_p), 0), x)
    np.testing.assert_allclose(found, [[0.0, expected]], 1e-5, 1e-6)
    # A vector at each place of a map: what belongs to one latent variable is added up.
    maps = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)), jnp.float32)
    each = gaussian_kl(maps, maps)
    np.testing.assert_allclose(
        each, sum(gaussian_kl(maps[:, i, j], maps[:, i, j]) for i in range(3) for j in range(4)),
        1e-5,
    )  # fmt: skip


def test_free_nats():
    kl = jnp.asarray([[0.2, 3.0], [0.6, 1.0], [9.0, 9.0]])
    mask = jnp.asarray([True, True, False])
    found, slope = jax.value_and_grad(lambda kl: free_nats(kl, mask, 0.5).value)(kl)
    assert float(found) == pytest.approx(0.5 + 2.0)  # means 0.4 and 2, of which 0.4 is free
    np.testing.assert_allclose(slope, [[0, 0.5], [0, 0.5], [0, 0]])


def test_how_many_codes_are_used():
    indices = jnp.asarray([[[0, 1], [1, 1]], [[3, 3], [3, 3]], [[2, 2], [2, 2]]])
    usage = CodeUsage.of(indices, jnp.asarray([True, True, False]), 5)
    np.testing.assert_array_equal(usage.counts, [1, 3, 0, 4, 0])
    share = np.array([1, 3, 4]) / 8
    found = usage.compute("usage")
    assert found["codebook_perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found["codebook_usage"] == pytest.approx(3 / 5)
    alone = CodeUsage.of(indices[1:2], jnp.ones(1, bool), 5).compute("")
    assert alone["codebook_perplexity"] == pytest.approx(1)
    both = compute({"usage": add(usage, usage)})
    assert both == pytest.approx(found)
    nothing = CodeUsage.of(indices, jnp.zeros(3, bool), 5).compute("")
    assert np.isnan(list(nothing.values())).all()


def test_how_many_latent_variables_say_something():
    kl = jnp.asarray([[0.02, 0.0, 5.0], [0.01, 0.0, 5.0], [9.0, 9.0, 9.0]])
    units = ActiveUnits.of(kl, jnp.asarray([True, True, False]))
    assert units.compute("active_units") == {"active_units": 2.0}
    nothing = ActiveUnits.of(kl, jnp.zeros(3, bool))
    assert np.isnan(nothing.compute("a")["a"])
