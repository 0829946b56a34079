"""Masks as bits, against NumPy's packing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops import bits


@pytest.mark.parametrize("width", [1, 8, 13])
def test_rows_are_packed_as_numpy_packs_them(width):
    masks = np.random.default_rng(width).random((2, 3, 5, width)) < 0.4
    packed = jax.jit(bits.pack)(jnp.asarray(masks))
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=-1))
    np.testing.assert_array_equal(jax.jit(bits.unpack, static_argnums=1)(packed, width), masks)
    np.testing.assert_array_equal(jax.jit(bits.count)(packed), masks.sum((2, 3)))


@pytest.mark.parametrize("count", [1, 8, 11])
def test_pixels_say_which_masks_they_are_in(count):
    masks = np.random.default_rng(count).random((2, count, 6, 13)) < 0.4
    packed = jnp.asarray(np.packbits(masks, axis=-1))
    planes = jax.jit(bits.planes, static_argnums=1)(packed, 13)
    eights = np.zeros((2, -(-count // 8), 8, 6, 13), bool)
    eights.reshape(2, -1, 6, 13)[:, :count] = masks
    np.testing.assert_array_equal(planes, np.packbits(eights, axis=2)[:, :, 0])
    again = jax.jit(bits.from_planes, static_argnums=1)(planes, count)
    np.testing.assert_array_equal(again, packed)


def test_no_mask_is_unpacked_on_the_way():
    """100 masks of 256 x 256 pixels would be 6.5 MB with a byte a pixel."""

    def there_and_back(packed):
        return bits.from_planes(jnp.flip(bits.planes(packed, 256), 3), 100)

    packed = jax.ShapeDtypeStruct((1, 100, 256, 32), jnp.uint8)
    memory = jax.jit(there_and_back).lower(packed).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2.2 * 100 * 256 * 32
