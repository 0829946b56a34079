"""Images are padded behind, and cropped about their middle."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.layers.images import center_crop, check_size, pad_to_multiple


def test_pad_to_multiple():
    image = np.arange(1, 31, dtype=np.float32).reshape(1, 3, 5, 2)
    padded = pad_to_multiple(jnp.asarray(image), 4)
    assert padded.shape == (1, 4, 8, 2)
    np.testing.assert_array_equal(padded[:, :3, :5], image)
    assert not padded[:, 3:].any()
    assert not padded[:, :, 5:].any()
    volume = jnp.ones((1, 4, 1, 3, 1))
    assert pad_to_multiple(volume, 2).shape == (1, 4, 2, 4, 1)


@pytest.mark.parametrize("library", [np, jnp])
def test_center_crop(library):
    maps = library.arange(5 * 6).reshape(1, 5, 6)
    # One row is left out above and one below; of an odd number the larger part behind.
    expected = np.arange(30).reshape(1, 5, 6)[:, 1:4, 1:4]
    np.testing.assert_array_equal(center_crop(maps, (3, 3)), expected)
    assert center_crop(library.zeros((2, 4, 6, 8, 3)), (2, 2, 2)).shape == (2, 2, 2, 2, 3)


def test_check_size():
    check_size(jnp.zeros((1, 8, 9, 3)), 8, "Net")
    with pytest.raises(UserError, match="Net takes images of 10x10 or more; not of 8x12"):
        check_size(jnp.zeros((1, 8, 12, 3)), 10, "Net")
