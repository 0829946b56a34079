"""EfficientDet beyond its reference: the paper's figure, other encoders, losses, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.detection.efficientdet import _fused, losses

SMALL = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1, 1, 1, 1)},
    **{"width": 16, "repeats": 1, "depth": 1},
}


def traced(image, **options):
    train = options.pop("train", False)
    network = models.create("tf_efficientdet_d0", 3, **SMALL | options)
    shape = jax.ShapeDtypeStruct(image, jnp.float32)
    return jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=train), shape
    )


def test_what_each_node_takes():
    """Figure 2d of the paper: P3 to P7 are 0 to 4, the nodes on the way down 5 to 8."""
    assert _fused(5) == [
        (3, [3, 4]),
        (2, [2, 5]),
        (1, [1, 6]),
        (0, [0, 7]),
        (1, [1, 7, 8]),
        (2, [2, 6, 9]),
        (3, [3, 5, 10]),
        (4, [4, 11]),
    ]


def test_on_another_encoder():
    found, variables = traced((2, 96, 64, 3))
    assert found["boxes"].shape == (2, 100, 4)
    encoder = models.create("resnet18", features_only=True, depths=(1, 1, 1, 1))
    image = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    alone = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x), image)
    # Weights of the encoder's own network fit.
    assert jax.tree.map(jnp.shape, variables["params"]["backbone"]) == jax.tree.map(
        jnp.shape, alone["params"]
    )


def test_narrow_images():
    """One column is left from stride 32 on, while rows still halve."""
    found, _ = traced((1, 256, 32, 3))
    assert found["boxes"].shape == (1, 100, 4)


def test_on_an_encoder_that_rounds_down():
    found, _ = traced((1, 95, 125, 3), encoder="vgg11", encoder_options={})
    assert found["boxes"].shape == (1, 100, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "fastest"}, "fusion of EfficientDet 'fastest'. Did you mean 'fast'"),
        ({"last_level": 4}, "last_level is 4; its encoder's maps alone reach level 5"),
        (
            {"encoder_options": {"output_stride": 16, "depths": (1, 1, 1, 1)}},
            "EfficientDet needs an encoder with a map of stride 32",
        ),
        ({"train": True}, "needs targets"),
    ],
)
def test_messages(options, message):
    with pytest.raises(UserError, match=message):
        traced((1, 64, 64, 3), **options)


ANCHORS = np.float32([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [40, 40, 50, 50]])


def test_losses_by_hand():
    """Two of four anchors have an object: by its overlap the first, as its object's best the last.

    The crowd of the third is not learnt from. The first object's centre is its anchor's, which
    costs nothing wherever it is said to be.
    """
    logits = jnp.zeros((1, 4, 2))
    side = np.log(0.8)
    coded = jnp.zeros((1, 4, 4)).at[0, 0].set(jnp.float32([3, 3, side + 0.05, side - 2]))
    coded = coded.at[0, 3].set(jnp.float32([-0.3, -0.3, np.log(0.4), np.log(0.4)]))
    targets = {
        "boxes": np.float32([[[1, 1, 9, 9], [40, 40, 44, 44], [0, 20, 10, 30]]]),
        "box_label": jnp.array([[1, 0, 0]]),
        "box_valid": jnp.array([[True, True, True]]),
        "box_crowd": jnp.array([[False, False, True]]),
        "valid": jnp.array([True]),
    }
    step = jax.jit(lambda *a: losses(*a[:2], jnp.asarray(ANCHORS), a[2], 0.5))
    found = step(logits, coded, targets)
    each = np.log(2) * 0.5**1.5
    assert found["class_loss"].value == pytest.approx(each * (2 * 0.25 + 6 * 0.75) / 3, rel=1e-5)
    huber = 0.5 * 0.05**2 + 0.1 * (2 - 0.05)
    assert found["box_loss"].value == pytest.approx(50 * huber / (4 * 3), rel=1e-5)
    padding = step(logits, coded, targets | {"valid": jnp.array([False])})
    assert all(mean.value == 0 for mean in padding.values())
