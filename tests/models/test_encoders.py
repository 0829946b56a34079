"""Networks that stand on others than their references do."""

import jax
import jax.numpy as jnp
import pytest

from jaxvision import models
from jaxvision.errors import UserError


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3plus_resnet50"])
def test_an_encoder_without_output_stride_keeps_its_own(name):
    network = models.create(name, 3, encoder="shufflenet_v2_x0_5")
    image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), image)
    assert logits.shape == (1, 64, 96, 3)
    with pytest.raises(UserError, match=r"option of model 'shufflenet_v2_x0_5' 'output_stride'"):
        models.create(name, 3, encoder="shufflenet_v2_x0_5", encoder_options={"output_stride": 8})


def test_an_encoder_without_the_maps_is_refused():
    network = models.create("deeplabv3plus_resnet50", 3, encoder="vit_tiny_patch16_224")
    with pytest.raises(UserError, match=r"needs an encoder with a map of stride 4; .* strides 16"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def test_encoders_without_padding():
    image = jax.ShapeDtypeStruct((1, 150, 171, 3), jnp.float32)
    unet = models.create("unet_resnet18", 3, encoder="squeezenet1_0")
    logits, _ = jax.eval_shape(lambda x: unet.init_with_output(jax.random.key(0), x), image)
    assert logits.shape == (1, 150, 171, 3)
    fcn = models.create("fcn8s_resnet18", 3, encoder="inception_v3")
    with pytest.raises(UserError, match=r"needs an encoder that pads: its map of stride"):
        jax.eval_shape(lambda x: fcn.init(jax.random.key(0), x), image)
