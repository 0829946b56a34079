"""Fast R-CNN, SPP-net and R-FCN: what is drawn, what counts, what stays as it is, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.detection.roi_heads import Samples, box_losses, detect
from jaxvision.models.detection.rpn import Proposals, Sampling, assign

KEY = jax.random.key(0)
SMALL = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1,)},
    "strides": (4,),
    "pool_size": 2,
    "head_hidden": (8, 8),
}


def small(name="fastrcnn_resnet50", **options):
    return models.create(name, 3, **{**SMALL, **options})


def shapes(network, side=64):
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: network.init(KEY, x), x)


@pytest.mark.parametrize(
    ("there", "labels"),
    # IoU with the object: 1, 0.5, 0.2, 0.05, 0.
    [(True, [1, 1, 0, -1, -1]), (False, [0, 0, 0, 0, 0])],
)
def test_background_overlaps_an_object_a_little(there, labels):
    places = jnp.array(
        [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 4, 5], [0, 0, 1, 5], [20, 0, 30, 9.0]]
    )
    boxes, valid = jnp.array([[0, 0, 10, 10], [20, 0, 30, 9.0]]), jnp.array([there, False])
    sampling = Sampling(64, 0.25, 0.5, 0.5, 0.1)
    _, found = jax.jit(lambda: assign(places, boxes, valid, sampling, False))()
    np.testing.assert_array_equal(found, labels)


def test_without_proposals_the_whole_image_is_the_region():
    network = small()
    image = jax.random.normal(KEY, (2, 64, 48, 3))

    @jax.jit
    def both(image):
        variables = network.init(KEY, image)
        whole = jnp.tile(jnp.array([0, 0, 48, 64.0]), (2, 1, 1))
        return (
            network.apply(variables, image, method="heads"),
            network.apply(variables, image, whole, method="heads"),
        )

    alone, given = both(image)
    assert alone["deltas"].shape == (2, 1, 4, 4)
    jax.tree.map(np.testing.assert_array_equal, alone, given)


def test_proposals_that_are_padding_count_for_nothing():
    """What is found and lost does not change with what the padding holds."""
    network = small(score_threshold=0.0, nms_threshold=1.0, box_sampling=(64, 1.0, 0.5, 0.5, 0.1))
    valid = jnp.array([[True, True, False]])
    targets = {
        "boxes": jnp.array([[[0, 0, 30, 30.0]]]),
        "box_label": jnp.array([[1]]),
        "box_valid": jnp.array([[True]]),
    }

    @jax.jit
    def outcome(last):
        boxes = jnp.array([[0, 0, 30, 28], [0, 0, 30, 10]], jnp.float32)
        given = jnp.concatenate([boxes, last[None]])[None], valid
        image = jax.random.normal(KEY, (1, 64, 64, 3))
        variables = network.init(KEY, image)
        losses, _ = network.apply(
            variables, image, *given, True, targets, mutable=["batch_stats"], rngs={"dropout": KEY}
        )
        return network.apply(variables, image, *given), losses

    found, losses = outcome(jnp.zeros(4))
    assert found["valid"].sum() == 2 * 3
    assert losses["loss_classifier"].weight == 3  # with the object's own box
    again = outcome(jnp.array([0, 0, 30, 30.0]))
    jax.tree.map(np.testing.assert_array_equal, (found, losses), again)


def test_statistics_of_spp_net_stay_as_they_are():
    network = small("sppnet_vgg16", pool_size=(2, 1))
    variables = shapes(network)
    assert variables["params"]["roi_heads.box_head"]["fc6"]["kernel"].shape == (64 * (4 + 1), 8)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    targets = {
        "boxes": jax.ShapeDtypeStruct((2, 1, 4), jnp.float32),
        "box_label": jax.ShapeDtypeStruct((2, 1), jnp.int32),
        "box_valid": jax.ShapeDtypeStruct((2, 1), bool),
    }

    def changed(variables, x, targets):
        options = {"rngs": {"dropout": KEY}, "mutable": ["batch_stats"]}
        return network.apply(variables, x, train=True, targets=targets, **options)[1]

    # What is not written comes out as it went in: no primitive computes it.
    jaxpr = jax.make_jaxpr(changed)(variables, x, targets).jaxpr
    assert jaxpr.outvars
    assert all(out in jaxpr.invars for out in jaxpr.outvars)


def test_the_hardest_proposals_of_each_image_count():
    """Three proposals of two images, of which one is padding; two of each may count."""
    logits = jnp.log(jnp.array([[[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]] * 2))
    samples = Samples(
        jnp.zeros((2, 3, 4)),
        jnp.array([[0, 0, 1]] * 2),
        jnp.zeros((2, 3, 4)),
        jnp.zeros((2, 3), jnp.int32),
        jnp.array([[True, True, True], [True, False, True]]),
    )
    deltas = jnp.array([[[[3.0, 0, 0, 0]]]] * 2) * jnp.ones((2, 3, 1, 1))
    box = 3 - 1 / 18  # of smooth L1; background has none
    form = jax.jit(lambda hardest: box_losses(logits, deltas, samples, hardest), static_argnums=0)
    every, hard = form(0), form(2)
    np.testing.assert_allclose(every["loss_classifier"].total, -4 * np.log(0.9) + np.log(2), 1e-6)
    assert every["loss_classifier"].weight == every["loss_box_reg"].weight == 5
    np.testing.assert_allclose(hard["loss_classifier"].total, -3 * np.log(0.9) + np.log(2), 1e-6)
    np.testing.assert_allclose(hard["loss_box_reg"].total, 2 * box, 1e-6)
    assert hard["loss_classifier"].weight == hard["loss_box_reg"].weight == 4


def test_one_box_of_all_classes():
    proposals = Proposals(jnp.array([[[0, 0, 8, 8.0]]]), jnp.ones((1, 1)), jnp.ones((1, 1), bool))
    logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3]]]))
    shift = jnp.array([[[[10.0, 0, 0, 0]]]]) * 0.5  # half the width to the right
    found = jax.jit(lambda: detect(logits, shift, proposals, (16, 16), 0.1, 0.5, 3))()
    np.testing.assert_array_equal(found["labels"][0, :2], [0, 1])
    np.testing.assert_allclose(found["boxes"][0, :2], [[4, 0, 12, 8]] * 2, atol=1e-6)


def test_rfcn_stands_on_any_encoder_with_its_stride():
    options = {"width": 8, "bins": 2, "candidates": (8, 8), "proposals": (4, 4)}
    one = shapes(models.create("rfcn_resnet50", 3, encoder="vgg11", **options))["params"]
    assert one["rpn.head"]["conv_0_0"]["kernel"].shape[2] == 512
    assert one["roi_heads.new"]["kernel"].shape == (1, 1, 512, 8)
    assert one["roi_heads.cls"]["kernel"].shape[-1] == 4 * 4
    finer = models.create(
        "rfcn_resnet50",
        3,
        encoder="resnet18",
        encoder_options={"depths": (1, 1, 1), "output_stride": 8},
        stride=8,
        **options,
    )
    two = shapes(finer)["params"]
    assert two["rpn.head"]["conv_0_0"]["kernel"].shape[2] == 128
    assert two["roi_heads.new"]["kernel"].shape[2] == 256
    with pytest.raises(UserError, match="R-FCN needs an encoder with a map of stride 64"):
        shapes(models.create("rfcn_resnet50", 3, stride=64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "Unknown pool 'max'"),
        ({"pool": "align", "pool_size": (2, 1)}, r"pool_size=\(2, 1\) is a spatial pyramid"),
        ({"pool_size": (2, 1), "head_convs": (4,)}, "a head without convolutions"),
        ({"strides": (64,)}, "FastRCNN needs an encoder with a map of stride 64"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        shapes(small(**options))
