"""A run's variables, and the images that its network takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import runs
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import run


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    """A run whose network is for images of one size."""
    folder = tmp_path_factory.mktemp("localizer") / "run"
    run(configuration.load("configs/localization/shapes.py:smoke"), folder)
    return folder


def test_variables_may_be_read_first_where_a_function_is_traced(localizer):
    image = jnp.full((1, *runs.open(localizer).image_shape), 9, jnp.uint8)
    found = []
    for compiled in (jax.jit, lambda function: function):
        opened = runs.open(localizer)

        @compiled
        def predict(image, opened=opened):
            return opened.task.predict(opened.variables, {"image": image}, jax.random.key(0))

        found.append(np.asarray(predict(image)["probabilities"]))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(opened.variables))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_network_for_one_size_says_so(localizer):
    opened = runs.open(localizer)
    side = opened.image_shape[0]
    assert opened.predict([np.zeros((side, side, 3), np.uint8)])
    said = rf"has parameters for images of {side}x{side}, and does not take those of 50x70 too"
    with pytest.raises(UserError, match=said):
        opened.predict([np.zeros((50, 70, 3), np.uint8)])
