"""Positions on grids of any size."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.layers.positions import (
    relative_index,
    resample_positions,
    resize_relative_bias,
    sincos_positions,
    square_grid,
)


def test_sine_cosine_positions():
    positions = sincos_positions((3, 5), 8)
    assert positions.shape == (15, 8)
    row, column = 2, 4
    x = np.array([column, column / 10_000])
    y = np.array([row, row / 10_000])
    expected = [np.sin(x), np.cos(x), np.sin(y), np.cos(y)]
    np.testing.assert_allclose(positions[row * 5 + column], np.concatenate(expected), 1e-5)
    with pytest.raises(ValueError, match="in fours, not 6"):
        sincos_positions((2, 2), 6)


def test_relative_index_depends_on_the_offset_alone():
    index = relative_index((3, 4))
    places = [(i, j) for i in range(3) for j in range(4)]
    found = {}
    for a, (ya, xa) in enumerate(places):
        for b, (yb, xb) in enumerate(places):
            found.setdefault((ya - yb, xa - xb), set()).add(int(index[a, b]))
    assert all(len(rows) == 1 for rows in found.values())
    assert sorted(next(iter(rows)) for rows in found.values()) == list(range(5 * 7))


def test_a_class_token_has_three_rows_of_its_own():
    index = relative_index((2, 2), class_token=True)
    assert index[0, 0] == 11
    assert set(index[0, 1:]) == {9}
    assert set(index[1:, 0]) == {10}
    np.testing.assert_array_equal(index[1:, 1:], relative_index((2, 2)))


def test_the_same_grid_is_left_alone():
    positions = jnp.ones((1, 10, 4))
    assert resample_positions(positions, (3, 3)) is positions
    table = jnp.ones((9, 2))
    assert resize_relative_bias(table, (2, 2)) is table
    with pytest.raises(ValueError, match="11 tokens do not lie on a square grid"):
        square_grid(11)
