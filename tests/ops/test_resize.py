"""Resizing against PyTorch's results and against `jax.image` where the two mean the same."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops.resize import _along_both, _by_sums, _product, resize

IMAGE = (jnp.arange(12.0) ** 2 / 10).reshape(1, 3, 4, 1)

# (method, align_corners, antialias, size): what PyTorch 2.13's interpolate makes of IMAGE.
GOLDEN = {
    ("nearest", False, False, (2, 6)): [
        [0, 0, 0.1, 0.4, 0.4, 0.9],
        [1.6, 1.6, 2.5, 3.6, 3.6, 4.9],
    ],
    ("bilinear", False, False, (2, 6)): [
        [0.4, 0.55, 0.7833, 1.1167, 1.55, 1.9],
        [5.2, 5.95, 6.9833, 8.1167, 9.35, 10.3],
    ],
    ("bilinear", True, False, (2, 6)): [
        [0, 0.06, 0.16, 0.34, 0.6, 0.9],
        [6.4, 7.42, 8.48, 9.62, 10.84, 12.1],
    ],
    ("bilinear", False, True, (2, 2)): [[0.9143, 1.8571], [5.6286, 8.1429]],
    ("bicubic", False, False, (2, 6)): [
        [0.1718, 0.2778, 0.5225, 0.7827, 1.269, 1.6098],
        [5.2345, 5.9784, 7.2668, 8.2696, 9.7997, 10.7784],
    ],
    ("bicubic", False, True, (2, 2)): [[0.573, 1.5736], [5.6383, 8.6559]],
    ("bicubic", True, False, (5, 3)): [
        [0, 0.2125, 0.9],
        [0.35, 1.05, 2.225],
        [1.6, 3.0125, 4.9],
        [4.15, 6.275, 8.875],
        [6.4, 9.0125, 12.1],
    ],
}

few = settings(max_examples=6, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_resize_matches_pytorch(case):
    method, align_corners, antialias, size = case
    ours = resize(IMAGE, size, method, align_corners, antialias)
    np.testing.assert_allclose(ours[0, :, :, 0], GOLDEN[case], atol=1e-3)


@few
@given(sizes, sizes)
def test_antialiased_is_jax_image(size, new_size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    ours = resize(x, new_size, "bilinear", antialias=True)
    theirs = jax.image.resize(x, (2, *new_size, 3), "bilinear", antialias=True)
    np.testing.assert_allclose(ours, theirs, 1e-4, 1e-4)


@few
@given(sizes, sizes, st.sampled_from(["nearest", "bilinear", "bicubic"]), st.booleans())
def test_a_constant_stays_and_the_same_size_is_the_identity(size, new_size, method, aligned):
    options = {} if method == "nearest" else {"align_corners": aligned}
    x = jnp.full((1, *size, 2), 3.0)
    np.testing.assert_allclose(resize(x, new_size, method, **options), 3, 1e-5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    np.testing.assert_array_equal(resize(x, size, method, **options), x)


@few
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([(False, False), (True, False), (False, True)]),
)
def test_sums_of_rows_are_the_matrix_products(size, new_size, method, options):
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(2, *s, 3)), jnp.float32) for s in (size, new_size))
    static = (new_size, method, *options)
    ours, pull = jax.vjp(partial(_along_both, _by_sums, static), x)
    theirs, their_pull = jax.vjp(partial(_along_both, _product, static), x)
    np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)
    np.testing.assert_allclose(pull(g)[0], their_pull(g)[0], 1e-5, 1e-4)


def test_resizing_can_be_differentiated_twice():
    def energy(x):
        return (resize(jnp.asarray(x), (7, 5)) ** 3).sum()

    jax.test_util.check_grads(energy, (IMAGE,), order=2, modes=["rev"], rtol=1e-2)


def test_nearest_keeps_integers_and_its_gradient_is_a_sum():
    labels = jnp.arange(6, dtype=jnp.int32).reshape(1, 2, 3, 1)
    y = resize(labels, (4, 6), "nearest")
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y[0, :2, :, 0], [[0, 0, 1, 1, 2, 2]] * 2)
    for size in ((4, 6), (3, 5)):
        dx = jax.grad(lambda x, size=size: resize(x, size, "nearest").sum())(jnp.ones((1, 2, 3, 1)))
        assert dx.sum() == size[0] * size[1]


def test_bfloat16_is_computed_in_float32():
    x = IMAGE.astype(jnp.bfloat16)
    y = resize(x, (7, 5), "bicubic")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        y, resize(x.astype(jnp.float32), (7, 5), "bicubic").astype(jnp.bfloat16)
    )


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (IMAGE, {"method": "area"}, "not 'area'"),
        (IMAGE, {"method": "nearest", "antialias": True}, "no meaning"),
        (IMAGE.astype(jnp.uint8), {}, "not uint8"),
        (IMAGE[:, :0], {}, r"\(1, 0, 4, 1\) cannot be resized to 2x2"),
    ],
)
def test_bad_requests_are_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        resize(x, (2, 2), **options)


@pytest.mark.parametrize(
    ("size", "message"), [((0, 2), "resized to 0x2"), (-3, "to -3x-3"), ((2, 2, 2), "neither")]
)
def test_bad_sizes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        resize(IMAGE, size)
