import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """Three real photographs, uint8 [3, 48, 64, 3]."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    crops = [
        china[150:342:4, 100:356:4],
        flower[200:248, 250:314],
        skimage.data.astronaut()[60:156:2, 160:288:2],
    ]
    return np.stack([np.asarray(crop) for crop in crops])


@pytest.fixture(scope="session")
def images(photos):
    """The photographs as the augmentations take them."""
    return jnp.asarray(photos, jnp.float32) / 255


@pytest.fixture(scope="session")
def many(images):
    """The first photograph 2,000 times at 8 x 8, for statistics."""
    return jnp.broadcast_to(images[:1, 20:28, 20:28], (2000, 8, 8, 3))
