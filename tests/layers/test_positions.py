"""Positions on grids of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.layers.positions import (
    offsets,
    relative_index,
    resample_positions,
    resize_relative_bias,
    sequence_positions,
    sincos_positions,
    stored_grid,
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


def test_positions_of_words():
    positions = sequence_positions(7, 6)
    angles = 5 / 10_000 ** (np.arange(3) * 2 / 6)
    expected = np.stack([np.sin(angles), np.cos(angles)], 1).reshape(-1)
    np.testing.assert_allclose(positions[5], expected, 1e-6)
    with pytest.raises(UserError, match="in twos, not 7"):
        sequence_positions(3, 7)


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


def test_the_grid_of_stored_positions():
    assert stored_grid(16, (4, 4)) == (4, 4)
    assert stored_grid(16, (3, 5)) == (4, 4)
    assert stored_grid(15, (3, 5)) == (3, 5)
    assert stored_grid(16, (4, 4), declared=(2, 8)) == (2, 8)
    assert stored_grid(9 * 9, (3, 4), count=offsets) == (5, 5)
    assert stored_grid(5 * 7, (3, 4), count=offsets) == (3, 4)
    for rows, wanted, message in (
        (15, (4, 4), r"15 .* not square: .* grid=\(rows, columns\)"),
        (392, None, "392 .* not square"),
        (16, (2, 8), "16 stored positions are of 2x8 or 4x4"),
    ):
        with pytest.raises(UserError, match=message):
            stored_grid(rows, wanted)
    with pytest.raises(UserError, match="225 stored positions are of 5x13 or 8x8"):
        stored_grid(225, (5, 13), count=offsets)
    with pytest.raises(UserError, match="grid=3x5 has 15 positions; these are 16"):
        stored_grid(16, (4, 4), declared=(3, 5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_mnist", {"depth": 1, "width": 8, "num_heads": 1, "patch_size": 4}),
        ("beit_base_patch16_224", {"depth": 1, "width": 8, "num_heads": 1, "patch_size": 4}),
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (2,), "num_heads": (1,), "width": 8, "drop_path": 0.0},
        ),
    ],
)
def test_a_declared_grid(name, options):
    """Parameters have the declared grid's shape whatever the image, and fit it as they lie."""
    declared = models.create(name, 3, grid=(2, 8), **options)
    small, wide = jnp.ones((1, 16, 16, 3)), jnp.ones((1, 8, 32, 3))

    @jax.jit
    def run():
        variables = declared.init(jax.random.key(0), small)
        alike = models.create(name, 3, **options)
        other = alike.init(jax.random.key(0), jnp.ones((1, 8, 24, 3)))
        undeclared = alike.clone(grid=(2, 8)).init(jax.random.key(0), wide)
        return variables, undeclared, other, declared.apply(variables, small)

    variables, undeclared, other, logits = run()
    assert logits.shape == (1, 3)
    shapes = [jax.tree.map(jnp.shape, v) for v in (variables, undeclared, other)]
    assert shapes[0] == shapes[1] != shapes[2]
    with pytest.raises(UserError, match=r"grid=\(rows, columns\)|grid=.* has"):
        jax.eval_shape(models.create(name, 3, **options).apply, other, small)
