"""Sliding windows: what is local is computed as on the whole; tiles cover everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxvision.ops.tiling import Tiling, mirror, sliding_window


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(0, 12)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)
def test_outputs_cover_the_image(axes, overlap):
    size, output, lost = zip(*axes)
    tiling = Tiling.of(size, [o + w for o, w in zip(output, lost)], output, overlap)
    for n, o, starts, before, after, w in zip(
        size, output, tiling.starts, tiling.margin, tiling.after, tiling.window
    ):
        covered = np.zeros(max(n, o), bool)
        for start in starts:
            covered[start : start + o] = True
            assert start + w <= before + n + after  # the window lies in the mirrored image
        assert covered.all()
        assert starts[0] == 0


@pytest.mark.parametrize("size", [(23, 17), (40, 31), (5, 50), (1, 9)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_pointwise_network_is_the_same_in_windows(size, overlap):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    found = sliding_window(lambda p: 2 * p, x, (8, 9), overlap)
    np.testing.assert_allclose(found, 2 * x, rtol=1e-6)


@pytest.mark.parametrize("shape", [(23, 17), (12, 9, 14)])
def test_a_network_without_padding_sees_the_mirrored_image(shape):
    x = jax.random.normal(jax.random.key(0), (1, *shape, 2))
    kernel = jax.random.normal(jax.random.key(1), (5,) * len(shape) + (2, 3))
    spec = ("NHWC", "HWIO", "NHWC") if len(shape) == 2 else ("NDHWC", "DHWIO", "NDHWC")

    def valid(p):
        return lax.conv_general_dilated(
            p, kernel, (1,) * len(shape), "VALID", dimension_numbers=spec
        )

    found = sliding_window(valid, x, (9,) * len(shape), 0.0)
    expected = valid(mirror(x, (2,) * len(shape), (2,) * len(shape)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_windows_are_averaged_where_they_overlap():
    x = jnp.zeros((1, 1, 6, 1))
    ramp = lambda p: p + jnp.arange(4.0)[None, None, :, None]  # noqa: E731
    found = sliding_window(ramp, x, (1, 4), 0.5)[0, 0, :, 0]
    np.testing.assert_allclose(found, [0, 1, (2 + 0) / 2, (3 + 1) / 2, 2, 3])
