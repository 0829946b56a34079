"""DeconvNet: sizes, and its middle."""

import jax
import jax.numpy as jnp
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.inspect import layers

SMALL = {"width": 0.03125, "hidden": 4}


@pytest.mark.parametrize(("size", "window"), [((224, 224), 7), ((250, 231), 7), ((33, 47), 1)])
def test_keeps_any_size(size, window):
    model = models.create("deconvnet", 5, window=window, **SMALL)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert logits.shape == (1, *size, 5)


def test_the_middle_is_one_place():
    found = {n.path: n for n in layers(models.create("deconvnet", 5, **SMALL), (224, 224, 3))}
    assert found["fc6/conv"].output == (1, 1, 4)
    assert found["fc6_deconv/deconv"].output == (7, 7, 16)


def test_refuses_images_that_vanish():
    model = models.create("deconvnet", 5, **SMALL)
    with pytest.raises(
        UserError, match="DeconvNet takes images of 224x224 or more; not of 223x300"
    ):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 223, 300, 3))))
