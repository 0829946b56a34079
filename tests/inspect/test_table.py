"""Tables of layers: the lecture's VGG16, papers' receptive fields, fvcore's multiply-adds."""

import json
import math

import pytest
from flax import linen as nn
from parity.cases import GOLDEN

from jaxvision import models
from jaxvision.inspect import layers, totals
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.ops.pooling import avg_pool2d, max_pool2d

FVCORE = json.loads((GOLDEN.parent / "fvcore.json").read_text())


def lines(name, classes=1000, **options):
    return layers(models.create(name, classes, **options), models.variant(name).input_shape)


def test_vgg16_line_by_line():
    # CS231n, lecture 9: elements of each output and weights (biases are not in its table).
    expected = [
        ((224, 224, 64), 3 * 3 * 3 * 64),
        ((224, 224, 64), 3 * 3 * 64 * 64),
        ((112, 112, 64), 0),
        ((112, 112, 128), 3 * 3 * 64 * 128),
        ((112, 112, 128), 3 * 3 * 128 * 128),
        ((56, 56, 128), 0),
        ((56, 56, 256), 3 * 3 * 128 * 256),
        ((56, 56, 256), 3 * 3 * 256 * 256),
        ((56, 56, 256), 3 * 3 * 256 * 256),
        ((28, 28, 256), 0),
        ((28, 28, 512), 3 * 3 * 256 * 512),
        ((28, 28, 512), 3 * 3 * 512 * 512),
        ((28, 28, 512), 3 * 3 * 512 * 512),
        ((14, 14, 512), 0),
        ((14, 14, 512), 3 * 3 * 512 * 512),
        ((14, 14, 512), 3 * 3 * 512 * 512),
        ((14, 14, 512), 3 * 3 * 512 * 512),
        ((7, 7, 512), 0),
        ((4096,), 7 * 7 * 512 * 4096),
        ((4096,), 4096 * 4096),
        ((1000,), 4096 * 1000),
    ]
    found = lines("vgg16")
    assert [line.output for line in found] == [shape for shape, _ in expected]
    for line, (shape, weights) in zip(found, expected):
        assert line.parameters == (weights + shape[-1] if weights else 0)
        assert line.memory == 4 * math.prod(shape)
    whole = totals(found)
    assert whole.parameters == 138_357_544
    # With the image this is what the lecture's lines sum to, 15.2 M; its total says 24 M.
    assert whole.memory / 4 + 224 * 224 * 3 == 15_237_608
    assert found[0].receptive_field == (3, 3)
    assert found[17].receptive_field == (212, 212)
    assert found[17].stride == (32, 32)
    assert found[18].receptive_field is None


def test_alexnet_as_in_the_paper():
    found = lines("alexnet_groups")
    parameters = [line.parameters for line in found if line.parameters]
    # Krizhevsky 2012 with groups in the second, fourth and fifth convolution.
    assert parameters == [
        96 * 11 * 11 * 3 + 96,
        256 * 5 * 5 * 48 + 256,
        384 * 3 * 3 * 256 + 384,
        384 * 3 * 3 * 192 + 384,
        256 * 3 * 3 * 192 + 256,
        9216 * 4096 + 4096,
        4096 * 4096 + 4096,
        4096 * 1000 + 1000,
    ]
    assert totals(found).parameters == 60_965_224


class Stack(nn.Module):
    """`count` convolutions of one size."""

    kernel: int
    count: int
    features: int = 16

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(self.count):
            x = Conv2d(self.features, self.kernel, use_bias=False)(x)
        return x


def test_three_3x3_against_one_7x7():
    small, large = (layers(Stack(k, n), (32, 32, 16)) for k, n in ((3, 3), (7, 1)))
    assert small[-1].receptive_field == large[-1].receptive_field == (7, 7)
    assert totals(small).parameters == 3 * 9 * 16**2
    assert totals(large).parameters == 49 * 16**2


class VNetLeft(nn.Module):
    """The compression path of Milletari et al. 2016: 5x5x5 convolutions, 2x2x2 with stride 2."""

    @nn.compact
    def __call__(self, x, train=False):
        for stage, convolutions in enumerate((1, 2, 3, 3, 3)):
            if stage:
                x = nn.Conv(2, (2, 2, 2), (2, 2, 2), name=f"down{stage}")(x)
            for index in range(convolutions):
                x = nn.Conv(2, (5, 5, 5), name=f"stage{stage}_{index}")(x)
        return x


def test_receptive_fields_of_v_net():
    found = {line.path: line for line in layers(VNetLeft(), (32, 32, 32, 1))}
    last = ("stage0_0", "stage1_1", "stage2_2", "stage3_2", "stage4_2")
    assert [found[name].receptive_field for name in last] == [
        (size,) * 3 for size in (5, 22, 72, 172, 372)
    ]
    assert found["stage4_2"].stride == (16, 16, 16)


class FullyConvolutional(nn.Module):
    """VGG16 whose first dense layer is a 7x7 convolution: Long et al. 2015."""

    @nn.compact
    def __call__(self, x, train=False):
        x = models.create("vgg16", features_only=True)(x)[-1]
        return Conv2d(8, 7, padding=0, name="fc6")(x)


def test_receptive_field_of_fcn_vgg16():
    fc6 = layers(FullyConvolutional(), (224, 224, 3))[-1]
    assert fc6.receptive_field == (404, 404)
    assert fc6.stride == (32, 32)


class Branches(nn.Module):
    """Two convolutions whose sum is upsampled, pooled and averaged."""

    @nn.compact
    def __call__(self, x, train=False):
        x = Conv2d(4, (3, 5), name="a")(x) + Conv2d(4, 3, dilation=4, padding=4, name="b")(x)
        x = ConvTranspose2d(4, 4, 2, padding=1, name="up")(x)
        x = avg_pool2d(x, 4)
        x = max_pool2d(x, 3, stride=1, padding=1)
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def test_branches_and_upsampling():
    found = layers(Branches(), (16, 20, 3))
    a, b, up, average, maximum, mean, head = found
    assert a.receptive_field == (3, 5)
    assert b.receptive_field == (9, 9)
    assert up.output == (32, 40, 4)
    assert up.stride == (0.5, 0.5)
    assert up.receptive_field == (10, 10)
    assert up.multiply_adds == 16 * 20 * 4 * 4 * 16
    assert average.stride == (2, 2)
    assert maximum.receptive_field == (15.5, 15.5)
    assert mean.receptive_field is None
    assert head.multiply_adds == 8


# Of each kind of layer one network by default.
KINDS_OF_LAYERS = (
    *("alexnet", "vgg16_bn", "squeezenet1_0", "resnet18", "legacy_xception", "shufflenet_v2_x1_0"),
    *("vit_tiny_patch16_224", "mixer_s32_224", "beit_base_patch16_224"),
)


# Lines that fvcore's count of the reference does not have: means that timm does not write as a
# pooling (squeeze-and-excitation); and of those that ours lacks: poolings to the map's own size.
@pytest.mark.parametrize(
    "name",
    [
        n if n in KINDS_OF_LAYERS else pytest.param(n, marks=pytest.mark.slow)
        for n in FVCORE
        if n in models.names()
    ],
)
def test_multiply_adds_are_those_of_fvcore(name):
    side = {"legacy_xception": 299, "inception_v3": 299, "inception_v4": 299}.get(name, 224)
    found = layers(models.create(name), (side, side, 3))
    ours = sum(line.multiply_adds for line in found if line.kind != "mean")
    expected = sum(n for kind, n in FVCORE[name].items() if kind != "adaptive_avg_pool2d")
    assert ours == expected
    assert totals(found).parameters == sum(line.parameters for line in found)


def test_a_global_mean_counts_as_in_fvcore():
    assert totals(lines("resnet18")).multiply_adds == sum(FVCORE["resnet18"].values())


def test_scanning_and_remat_change_nothing():
    plain, scanned = (
        layers(models.create("vit_mnist", 10, **options), (28, 28, 1))
        for options in ({}, {"scan": True, "remat": True})
    )
    assert plain == scanned
