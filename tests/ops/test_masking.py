"""What is hidden of an image."""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.ops.masking import (
    hidden_blocks,
    hidden_centre,
    hidden_patches,
    hidden_squares,
    kept_patches,
)

KEY = jax.random.key(0)


def test_patches_of_the_least_noise_stay():
    noise = jnp.asarray([[0.5, 0.1, 0.9, 0.2], [0.3, 0.4, 0.0, 0.8]])
    kept = kept_patches(noise, 2)
    np.testing.assert_array_equal(kept, [[1, 3], [2, 0]])
    hidden = hidden_patches(kept, 4)
    np.testing.assert_array_equal(hidden, [[1, 0, 1, 0], [0, 1, 0, 1]])


def masking_generator(rng, grid, most, least, aspect=0.3):
    """`MaskingGenerator` of BEiT's authors, written down in NumPy; and its blocks."""
    height, width = grid
    steepest = (math.log(aspect), math.log(1 / aspect))
    mask, count, blocks = np.zeros(grid, bool), 0, []
    while count < most:
        free, before = most - count, count
        for _ in range(10):
            area = rng.uniform(least, free)
            ratio = math.exp(rng.uniform(*steepest))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w >= width or h >= height:
                continue
            top, left = rng.randint(0, height - h), rng.randint(0, width - w)
            block = mask[top : top + h, left : left + w]
            new = h * w - block.sum()
            if 0 < new <= free:
                block[:] = True
                count += new
                blocks.append((h, w))
                break
        if count == before:
            break
    return mask, blocks


def statistics(masks):
    """What tells distributions of masks apart: number, borders, places."""
    count = masks.sum((1, 2))
    across = (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2))
    down = (masks[:, 1:] != masks[:, :-1]).sum((1, 2))
    rows = masks.any(2).sum(1)
    middle = masks[:, 5:9, 5:9].sum((1, 2))
    values = np.stack([count, across, down, across * down, count**2, rows, middle], 1)
    return values.astype(np.float64)


def test_blocks_are_distributed_as_those_of_the_authors():
    grid, most, least, number = (14, 14), 75, 16, 1500
    rng = random.Random(0)
    theirs = np.stack([masking_generator(rng, grid, most, least)[0] for _ in range(number)])
    draw = jax.jit(jax.vmap(lambda key: hidden_blocks(key, grid, most, least)))
    ours = np.asarray(draw(jax.random.split(KEY, number)))
    assert ours.sum((1, 2)).max() <= most
    a, b = statistics(ours), statistics(theirs)
    error = np.sqrt((a.var(0) + b.var(0)) / number)
    assert (np.abs(a.mean(0) - b.mean(0)) < 3.5 * error).all(), (a.mean(0), b.mean(0), error)
    # The whole distribution of the number that is hidden, by Kolmogorov and Smirnov.
    shares = [np.cumsum(np.bincount(x.sum((1, 2)), minlength=most + 2)) / number
              for x in (ours, theirs)]  # fmt: skip
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * math.sqrt(2 / number)


def test_single_blocks_have_the_sizes_and_aspect_ratios_of_the_authors():
    """With as many patches as the smallest block has, most masks are of one block."""
    grid, most, number = (14, 14), 16, 1500
    draw = jax.jit(jax.vmap(lambda key: hidden_blocks(key, grid, most, most)))
    ours = np.asarray(draw(jax.random.split(jax.random.key(1), number)))
    rng = random.Random(1)
    found = []
    for masks in (
        ours,
        np.stack([masking_generator(rng, grid, most, most)[0] for _ in range(number)]),
    ):
        height, width = masks.any(2).sum(1), masks.any(1).sum(1)
        single = height * width == masks.sum((1, 2))
        sizes = height[single] * 100 + width[single]
        found.append(np.bincount(sizes, minlength=1500) / number)
    assert found[0].sum() > 0.2
    assert np.abs(np.cumsum(found[0]) - np.cumsum(found[1])).max() < 1.95 * math.sqrt(2 / number)
    assert {101 * 4, 208, 802} <= set(np.flatnonzero(found[0]))


def test_squares_and_the_centre():
    one = hidden_squares(KEY, (9, 7), 1, 3)
    assert one.shape == (9, 7)
    assert one.sum() == 9
    with_border = hidden_squares(KEY, (9, 7), 1, 3, border=1)
    assert with_border.sum() in (16, 20, 25)
    assert (with_border | one == with_border).all()
    several = hidden_squares(KEY, (9, 7), 5, 2)
    assert 4 <= several.sum() <= 20
    centre = hidden_centre((4, 6), 0.5)
    np.testing.assert_array_equal(
        centre.astype(int), [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]
    )
    assert hidden_centre((4, 6), 0.5, border=1).sum() == 4 * 5
