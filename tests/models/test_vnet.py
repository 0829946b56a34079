"""V-Net beyond its reference: the paper's receptive fields, sizes, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.inspect import layers

PAPER = {"depths": (1, 2, 3, 3, 3), "up_depths": (3, 3, 2, 1), "width": 2}


def test_receptive_fields_as_in_the_paper():
    # Table 1 of Milletari et al. 2016.
    found = {line.path: line for line in layers(models.create("vnet", **PAPER), (32, 32, 32, 1))}

    def field(place):
        return found[f"{place}/conv_block/conv"].receptive_field

    down = ("in_tr", "down_tr32/ops_1", "down_tr64/ops_2", "down_tr128/ops_2", "down_tr256/ops_2")
    assert [field(place) for place in down] == [(n,) * 3 for n in (5, 22, 72, 172, 372)]
    # On the way up the paper counts an up-convolution like a convolution of 2x2x2, one place more.
    # But with stride 2 a place comes from one place below and sees no more than that.
    up = ("up_tr256/ops_2", "up_tr128/ops_2", "up_tr64/ops_1", "up_tr32/ops_0")
    surplus = np.cumsum([8, 4, 2, 1])
    assert [field(place)[0] for place in up] == [468, 516, 532, 536]
    assert [field(place)[0] + n for place, n in zip(up, surplus)] == [476, 528, 546, 551]
    assert found["down_tr256/ops_2/conv_block/conv"].stride == (16, 16, 16)
    assert found["up_tr32/ops_0/conv_block/conv"].stride == (1, 1, 1)


def traced(shape, **options):
    model = models.create("vnet", **{"num_classes": 3, "width": 2, **options})
    volume = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), volume)


@pytest.mark.parametrize("size", [(16, 16, 16), (9, 30, 17)])
def test_keeps_any_size(size):
    assert traced((1, *size, 3))[0].shape == (1, *size, 3)


def test_halvings_and_classes_are_options():
    logits, variables = traced((1, 8, 8, 8, 1), depths=(1, 1, 2), up_depths=(1, 1))
    assert logits.shape == (1, 8, 8, 8, 3)
    stages = {"in_tr", "down_tr32", "down_tr64", "up_tr64", "up_tr32", "out_tr"}
    assert set(variables["params"]) == stages
    volume, variables = traced((1, 16, 16, 16, 1), num_classes=0)
    assert volume.shape == (1, 16, 16, 16, 4)
    assert "out_tr" not in variables["params"]


def test_dropout_takes_whole_channels():
    from jaxvision.models.segmentation.vnet import _drop

    x = jnp.ones((2, 3, 3, 3, 64))
    y = _drop(0.5, True).apply({}, x, rngs={"dropout": jax.random.key(0)})
    per_channel = np.asarray(y).reshape(2, 27, 64)
    assert set(np.unique(per_channel)) == {0.0, 2.0}
    np.testing.assert_array_equal(per_channel.min(1), per_channel.max(1))
