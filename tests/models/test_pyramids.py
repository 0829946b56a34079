"""Feature maps by stride, and decoders on them, at sizes that strides do not divide."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.layers.pyramid import doubled, feature_strides
from jaxvision.models.backbones.beit import Beit
from jaxvision.models.backbones.swin import SwinTransformer
from jaxvision.models.backbones.vit import VisionTransformer

ENCODERS = [name for name in models.names() if "pyramid" in models.variant(name).ends]
# Few of the blocks that are alike: their number decides no stride.
SHALLOW = {"depths": (1, 1, 1, 1)}
SMALL = {
    "beit_base_patch16_224": {"depth": 4, "width": 24, "num_heads": 2},
    "darknet53": {"widths": (32, 8, 8, 8, 8, 8), "depths": (1, 1, 1, 1, 1)},
    "densenet121": SHALLOW,
    "densenet40_k12_cifar10": {"depths": (1, 1, 1)},
    "efficientnet_b0": {"depth_mult": 0.25},
    "inception_v4": {"depths": (1, 1, 1)},
    "legacy_seresnet50": SHALLOW,
    "legacy_xception": {"middle": 1},
    "mixer_s32_224": {"depth": 4, "width": 24},
    "mobilenetv1_100": {"depths": (1, 1, 1, 1, 1)},
    "nasnet_4a1056": {"cells": 1},
    "resnet18": SHALLOW,
    "resnet20_cifar": {"depth": 8, "width": 4},
    "shufflenet_g3_w1": {"depths": (1, 2, 1)},
    "shufflenet_v2_x0_5": {"depths": (1, 2, 1)},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2, 1, 1), "width": 12},
    "vit_tiny_patch16_224": {"depth": 4},
}
CHOSEN = [*(SMALL.keys() - {"nasnet_4a1056", "inception_v4"}), "vgg11", "squeezenet1_0", "alexnet"]
CHOSEN += ["mobilenet_v3_small"]
SIZE = (375, 500)
# The maps that a decoder asks for, and encoders that round down, or do not pad.
NEEDED = {
    "unet_resnet18": (),
    "upernet_resnet18": (4, 8, 16, 32),
    "deeplabv3plus_resnet18": (4,),
}
ROUNDING = ("vgg11", "densenet121", "googlenet", "legacy_xception")


def marked(names, chosen):
    return [n if n in chosen else pytest.param(n, marks=pytest.mark.slow) for n in names]


def fitted(name, size):
    """The size, enlarged to what the network takes: patches, maps that halve."""
    fields = models.create(name)
    multiple = 32 if name == "bninception" else 1
    if not name.startswith("swin"):
        multiple = getattr(fields, "patch_size", multiple)
    return tuple(-(-side // multiple) * multiple for side in size)


def traced(model, size):
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)


@pytest.mark.parametrize("name", marked(ENCODERS, CHOSEN))
def test_declared_strides(name):
    options = SMALL.get(name, {})
    model = models.create(name, features_only=True, **options)
    # At its published size rounding does not hide a stride.
    levels = models.feature_info(name, **options)
    assert tuple(model.feature_strides) == tuple(level.stride for level in levels)
    if name.startswith("mixer"):
        return  # takes no other size
    size = fitted(name, SIZE)
    maps, _ = traced(model, size)
    for stride, found in zip(model.feature_strides, maps, strict=True):
        for side, ours in zip(size, found.shape[1:3]):
            # What is not padded loses a few rows.
            assert side / stride - 5 < ours < side / stride + 1.01


def test_strides_of_a_dilated_network():
    for name in ("resnet18", "legacy_seresnet50", "mobilenet_v2", "mobilenet_v3_small"):
        for stride in (32, 16, 8):
            options = {**SMALL.get(name, {}), "output_stride": stride}
            model = models.create(name, features_only=True, **options)
            assert model.feature_strides == doubled(5, first=2, last=stride)
            found = [level.stride for level in models.feature_info(name, **options)]
            assert tuple(found) == model.feature_strides


@functools.cache
def decoded(decoder, name, size):
    model = models.create(decoder, 3, encoder=name, encoder_options=SMALL.get(name, {}))
    logits, variables = traced(model, size)
    return logits.shape, jax.tree.map(lambda leaf: leaf.shape, variables)


@pytest.mark.parametrize("name", marked(ENCODERS, ROUNDING))
@pytest.mark.parametrize("decoder", NEEDED)
def test_decoders_at_any_size(decoder, name):
    """They take every size that the encoder takes, and their parameters do not depend on it."""
    if name.startswith(("mixer", "resnet1202")):
        pytest.skip("takes no other size, or is traced for a minute")
    strides = models.create(name, features_only=True, **SMALL.get(name, {})).feature_strides
    named = {2 ** round(np.log2(stride)) for stride in strides}
    if decoder == "upernet_resnet18" and len(strides) == 4 and len(named) == 1:
        named = set(NEEDED[decoder])  # whatever the stride, they are brought to four
    usual = fitted(name, (256, 256))
    if not named >= set(NEEDED[decoder]) or (decoder == "unet_resnet18" and len(named) < 3):
        with pytest.raises(UserError, match="needs an encoder with"):
            decoded(decoder, name, usual)
        return
    _, variables = decoded(decoder, name, usual)
    size = fitted(name, SIZE)
    logits, found = decoded(decoder, name, size)
    assert logits == (1, *size, 3)
    if models.variant(name).module not in (VisionTransformer, Beit, SwinTransformer):
        assert found == variables  # those have positions, which are the image's


def test_fcn_on_an_encoder_that_rounds_down():
    logits, found = decoded("fcn8s_resnet18", "vgg11", SIZE)
    assert logits == (1, *SIZE, 3)
    assert found == decoded("fcn8s_resnet18", "vgg11", (64, 64))[1]


def test_small_images_keep_all_levels():
    """Of 16x16 the maps of stride 16 and 32 are both one pixel."""
    _, usual = decoded("unet_resnet18", "resnet18", (64, 64))
    assert decoded("unet_resnet18", "resnet18", (16, 16)) == ((1, 16, 16, 3), usual)


class Undeclared(nn.Module):
    """Maps of strides 2, 4 and 8, rounded down."""

    features_only: bool = False

    @nn.compact
    def __call__(self, image, train=False):
        maps = []
        for _ in range(3):
            image = nn.avg_pool(image, (2, 2), (2, 2))
            maps.append(image)
        return tuple(maps)


def test_strides_that_are_not_declared_are_read_off():
    encoder = Undeclared()
    for size in ((32, 20), (63, 39)):
        image = jnp.zeros((1, *size, 3))
        assert feature_strides(encoder, image, encoder.apply({}, image)) == (2, 4, 8)
    image = jnp.zeros((1, 31, 20, 3))
    with pytest.raises(UserError, match=r"Undeclared .* images of 31x20 .* feature_strides"):
        feature_strides(encoder, image, encoder.apply({}, image))
