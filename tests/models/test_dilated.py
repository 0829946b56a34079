"""Dilated VGG-16 and its context module beyond their reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.inspect import layers
from jaxvision.models.segmentation.dilated import Context

SMALL = {"width": 0.03125, "hidden": 4}


class Scored(Context):
    """The context module, called as a network is."""

    def __call__(self, x, train=False):
        return super().__call__(x)


def test_receptive_fields_of_the_context_module():
    # Table 1 of the paper; a large module has the same.
    for form in ("basic", "large"):
        lines = [line for line in layers(Scored(form), (64, 64, 3)) if line.parameters]
        fields = [line.receptive_field for line in lines]
        assert fields == [(n, n) for n in (3, 5, 9, 17, 33, 65, 67, 67)]
        assert lines[-1].output == (64, 64, 3)
    assert [line.output[-1] for line in lines] == [6, 6, 12, 24, 48, 96, 96, 3]


@pytest.mark.parametrize(("form", "noise"), [("basic", 1e-6), ("large", 0.3)])
def test_context_module_starts_as_the_identity(form, noise):
    # On scores that no rectifier cuts; the large one has noise between its groups.
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (1, 5, 4, 2)), jnp.float32)
    key = jax.random.key(0, impl="rbg")  # compiles sooner
    y, _ = jax.jit(Context(form).init_with_output)(key, x)
    assert y.shape == x.shape
    assert float(jnp.abs(y - x).max()) <= noise


def test_front_end():
    found = {n.path: n for n in layers(models.create("dilated_vgg16", 5, **SMALL), (64, 48, 3))}
    assert found["fc6"].output == (8, 6, 4)
    assert found["fc6"].stride == (8, 8)
    # 186 pixels on either side of a block of 8.
    assert found["fc6"].receptive_field == (380, 380)


@pytest.mark.parametrize("context", ["", "basic"])
@pytest.mark.parametrize("size", [(8, 8), (33, 47)])
def test_keeps_any_size(context, size):
    model = models.create("dilated_vgg16", 5, context=context, **SMALL)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert logits.shape == (1, *size, 5)


def test_unknown_context():
    model = models.create("dilated_vgg16", 5, context="larger", **SMALL)
    with pytest.raises(UserError, match=r"context module 'larger'.*'large'"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
