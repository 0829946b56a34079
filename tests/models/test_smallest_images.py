"""Images of the smallest size that a classic network takes, and of one less."""

import jax
import jax.numpy as jnp
import pytest

from jaxvision import models
from jaxvision.errors import UserError

SMALLEST = {
    "alexnet": 63,
    "darknet19": 32,
    "darknet24": 31,
    "vgg11": 32,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "googlenet": 15,
    "googlenet_lrn": 31,
    "bninception": 31,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "legacy_xception": 7,
    "nasnet_4a1056": 3,
}
# Few of the blocks that are alike: their number decides nothing here.
SHORT = {
    "inception_v4": {"depths": (1, 1, 1)},
    "inception_resnet_v2": {"depths": (1, 1, 1)},
    "legacy_xception": {"middle": 1},
    "nasnet_4a1056": {"cells": 1},
}


def outputs(name, height, width, **more):
    model = models.create(name, 7, **SHORT.get(name, {}), **more)
    image = jax.ShapeDtypeStruct((1, height, width, 2), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image).shape


@pytest.mark.parametrize(("name", "side"), SMALLEST.items())
def test_smallest(name, side):
    assert outputs(name, side, side) == (1, 7)
    with pytest.raises(UserError, match=f"{side}x{side} or more"):
        outputs(name, side + 9, side - 1)


def test_bninception_takes_maps_that_halve():
    assert outputs("bninception", 96, 70) == (1, 7)
    for size in ((96, 71), (94, 64)):
        with pytest.raises(UserError, match="multiples of 32"):
            outputs("bninception", *size)


def test_auxiliary_head_of_inception_v3_needs_the_published_size():
    assert outputs("inception_v3", 298, 298) == (1, 7)
    assert outputs("inception_v3", 299, 299, aux_logits=True) == (1, 7)
    with pytest.raises(UserError, match="299x299 or more"):
        outputs("inception_v3", 298, 298, aux_logits=True)
