"""Regions of interest against torchvision's operators, and what else their forms promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.roi_ops import CANONICAL, CASES, GOLDEN, SCALE, boxes, cotangent, maps

from jaxvision.ops import roi
from jaxvision.ops.roi.align import _grid
from jaxvision.ops.roi.pool import cells_of

FOUND = np.load(GOLDEN)
SLOW = {"align, many samples", "position-sensitive align, adaptive", "pyramid, adaptive"}
SLOW_PLAIN = set(CASES) - {"align", "align, adaptive"}


def operator(name):
    kind, _, bins, options = CASES[name]
    if kind != "multiscale":
        form = getattr(roi, kind)
        return lambda maps, boxes: form(*maps, boxes, bins, spatial_scale=SCALE, **options)
    size, level = CANONICAL
    return partial(
        roi.multiscale_roi_align,
        output_size=bins,
        strides=(4, 8),
        canonical_size=size,
        canonical_level=level,
        **options,
    )


def passes(name):
    """The values, and the gradients of the maps and of the boxes."""
    form = operator(name)

    @jax.jit
    def both(maps, boxes, g):
        y, pull = jax.vjp(form, maps, boxes)
        return y, *pull(g)

    g = cotangent(name, FOUND[f"{name}/value"].shape)
    return both([jnp.asarray(m) for m in maps(name)], jnp.asarray(boxes(name)), g)


def marked(slow):
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in CASES]


def compare(name):
    value, gradients, of_boxes = passes(name)
    keys = [f"{name}/value", *(f"{name}/gradient {k}" for k in range(len(gradients)))]
    for ours, key in zip([value, *gradients], keys, strict=True):
        np.testing.assert_allclose(ours, FOUND[key], 1e-4, 1e-5 * np.abs(FOUND[key]).max())
    assert not np.any(of_boxes)


@pytest.mark.parametrize("name", marked(SLOW))
def test_values_and_gradients_are_torchvisions(name):
    compare(name)


@pytest.mark.parametrize("name", marked(SLOW_PLAIN))
def test_the_forms_of_several_devices_and_accelerators(name, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    jax.clear_caches()  # of the forms that were chosen on one device
    compare(name)
    jax.clear_caches()


def test_a_bin_over_many_tiles():
    """The mean of a map, one bin of 20x40 cells; its gradient is the same everywhere."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 20, 40, 2)), jnp.float32)
    box = jnp.array([[[0.0, 0.0, 40.0, 20.0]]])

    @jax.jit
    def both(x):
        return jax.vjp(lambda x: roi.roi_align(x, box, 1, aligned=True), x)[0], jax.grad(
            lambda x: roi.roi_align(x, box, 1, aligned=True).sum()
        )(x)

    mean, gradient = both(x)
    np.testing.assert_allclose(mean[0, 0, 0, 0], x.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(gradient, np.full(x.shape, 1 / 800), rtol=1e-5)


def test_cells_of_bins_round_as_in_float32():
    low, high = jnp.zeros((1, 600)), jnp.arange(600.0)[None]
    for bins in (3, 6, 7, 14):
        cells = jax.jit(partial(cells_of, bins=bins, limit=9999, last=True))(low, high)
        size = np.arange(1, 601, dtype=np.float32) / np.float32(bins)
        edges = np.arange(bins + 1, dtype=np.float32)
        np.testing.assert_array_equal(cells.first[0], np.floor(edges[:-1] * size[:, None]))
        np.testing.assert_array_equal(cells.behind[0], np.ceil(edges[1:] * size[:, None]))


def test_samples_of_a_bin_follow_from_its_exact_size():
    high = jnp.arange(0.0, 900.0)[None]
    for bins in (3, 7, 14):
        count = jax.jit(lambda h, n=bins: _grid(jnp.zeros_like(h), h, n, 0, None).samples)(high)
        np.testing.assert_array_equal(count[0], -(-np.arange(900) // bins))


def test_level_of_a_box():
    """Equation 1 of the paper: 224 pixels are level 4, half of it level 3; clipped at the ends."""
    sides = jnp.array([0.0, 10.0, 111.9, 112.0, 223.0, 224.0, 448.0, 5000.0])
    level = roi.pyramid_level(jnp.stack([0 * sides, 0 * sides, sides, sides], -1), (2, 5))
    np.testing.assert_array_equal(level, [2, 2, 2, 3, 3, 4, 5, 5])


def test_half_precision_is_summed_in_single():
    x, at = jnp.asarray(maps("align")[0]), jnp.asarray(boxes("align"))
    half = x.astype(jnp.bfloat16)
    ours = roi.roi_align(half, at, 2, SCALE, 2)
    assert ours.dtype == jnp.bfloat16
    expected = roi.roi_align(half.astype(jnp.float32), at, 2, SCALE, 2).astype(jnp.bfloat16)
    np.testing.assert_array_equal(ours, expected)


def test_what_is_refused():
    x, at = jnp.zeros((1, 4, 4, 6)), jnp.zeros((1, 1, 4))
    with pytest.raises(ValueError, match="sampling_ratio is -1; 0 adapts it"):
        roi.roi_align(x, at, 2, sampling_ratio=-1)
    with pytest.raises(ValueError, match="6 channels do not divide into 2 x 2 bins"):
        roi.ps_roi_pool(x, at, 2)
    with pytest.raises(ValueError, match=r"strides \(4, 16\) of 2 maps do not double"):
        roi.multiscale_roi_align([x, x], at, 2, (4, 16))
