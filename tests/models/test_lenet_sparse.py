"""What the golden file does not show of the LeNet-5 of 1998."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.backbones.lenet import BITMAPS, TABLE


def test_parameters_layer_by_layer():
    # LeCun et al. 1998, section II-B.
    model = models.create("lenet5_sparse", 10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]
    found = {name: sum(p.size for p in jax.tree.leaves(part)) for name, part in params.items()}
    assert found == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert sum(len(maps) for maps in TABLE) == 60
    assert len(set(TABLE)) == 16


def test_bitmaps_tell_the_classes_apart():
    assert set(np.unique(BITMAPS)) == {-1.0, 1.0}
    different = (BITMAPS[:, None] != BITMAPS).sum(-1) + 84 * np.eye(10)
    assert different.min() >= 4


def test_a_unit_that_meets_its_bitmap_is_zero_and_the_greatest():
    model = models.create("lenet5_sparse", 10)
    image = jnp.zeros((1, 28, 28, 1))
    variables = jax.jit(model.init)(jax.random.key(0), image)
    code = 1.5 * np.arctanh(BITMAPS[3] / 1.7159)  # what the scaled tanh makes the bitmap of
    kernel = jnp.zeros_like(variables["params"]["f6"]["kernel"])
    params = {**variables["params"], "f6": {"kernel": kernel, "bias": jnp.asarray(code)}}
    distances = -jax.jit(model.apply)({"params": params}, image)[0]
    assert float(distances[3]) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(distances, 4 * (BITMAPS[3] != BITMAPS).sum(-1), atol=1e-4)


def test_it_has_bitmaps_of_ten_classes():
    with pytest.raises(UserError, match=r"not of 11\. Create it with num_classes=10"):
        models.create("lenet5_sparse", 11).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
