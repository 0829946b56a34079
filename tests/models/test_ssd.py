"""SSD beyond its references: published sizes, other encoders, crowds, suppression, messages."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.detection.outputs import select, select_of_each_class
from jaxvision.models.detection.ssd import losses

SMALL = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1, 1, 1, 1)},
    **{"normalize": False, "linear": 0, "strides": (8, 16, 32), "scales": (), "steps": ()},
    **{"extras": ((8, 16, 3, 2, 1),), "ratios": ((2, 3),) * 4},
}
ANCHORS = np.float32([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [40, 40, 50, 50]])


def traced(network, image, **options):
    shape = jax.ShapeDtypeStruct(image, jnp.float32)
    made = functools.partial(network.init_with_output, **options)
    return jax.eval_shape(lambda x: made(jax.random.key(0), x), shape)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ssd300_vgg16", 8732),  # both of the paper, table 7
        ("ssd512_vgg16", 24564),
        ("ssdlite320_mobilenet_v3_large", 3234),
    ],
)
def test_default_boxes_of_the_published_size(name, count):
    image = (1, *models.variant(name).input_shape)
    heads, _ = traced(models.create(name, 2), image, method="heads")
    assert heads["cls_logits"].shape == (1, count, 3)
    assert heads["bbox_regression"].shape == (1, count, 4)


@pytest.mark.parametrize("separable", [False, True])
def test_on_another_encoder(separable):
    network = models.create("ssd300_vgg16", 3, separable=separable, **SMALL)
    found, variables = traced(network, (2, 96, 64, 3))
    assert found["boxes"].shape == (2, 200, 4)
    encoder = models.create("resnet18", features_only=True, depths=(1, 1, 1, 1))
    _, alone = traced(encoder, (2, 96, 64, 3))
    # Weights of the encoder's own network fit.
    assert jax.tree.map(jnp.shape, variables["params"]["backbone"]) == jax.tree.map(
        jnp.shape, alone["params"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": ((2,), (2,))}, "4 maps, 3 of its encoder and 1 extra; they need 4 ratios"),
        ({"scales": (0.1, 0.5)}, "need 5 scales, not 2"),
        ({"steps": (8, 16)}, "need 4 steps, not 2"),
        ({"extras": ((8, 16, 3, 1, 0),)}, r"3x3 convolution, which does not fit a map of 2x2"),
        ({"strides": (8, 64)}, "needs an encoder with a map of stride 64"),
    ],
)
def test_options_that_do_not_fit(options, message):
    network = models.create("ssd300_vgg16", 3, **{**SMALL, **options})
    with pytest.raises(UserError, match=message):
        traced(network, (1, 64, 64, 3))


def test_training_needs_targets():
    network = models.create("ssd300_vgg16", 3, **SMALL)
    with pytest.raises(UserError, match="needs targets"):
        traced(network, (1, 64, 64, 3), train=True)


def test_losses_by_hand():
    """Of four default boxes the first has an object, and the three others are its negatives."""
    logits = jnp.log(jnp.float32([[[1, 2, 1], [2, 1, 1], [8, 1, 1], [3, 1, 1]]]))
    coded = jnp.zeros((1, 4, 4)).at[0, 0].set(jnp.float32([0.5, 3, 0, 0]))
    targets = {
        "boxes": ANCHORS[None, [0, 1, 2]],
        "box_label": jnp.array([[0, 1, 1]]),
        "box_valid": jnp.array([[True, True, False]]),
        "box_crowd": jnp.array([[False, True, False]]),
        "valid": jnp.array([True]),
    }
    found = jax.jit(lambda *a: losses(*a, jnp.asarray(ANCHORS), targets, 0.5))(logits, coded)
    classification = np.log(4 / 2) + np.log(4 / 2) + np.log(10 / 8) + np.log(5 / 3)
    assert found["classification"].value == pytest.approx(classification, rel=1e-6)
    assert found["bbox_regression"].value == pytest.approx(0.5 * 0.5**2 + 3 - 0.5, rel=1e-6)
    padding = jax.jit(
        lambda *a: losses(*a, jnp.asarray(ANCHORS), targets | {"valid": jnp.array([False])}, 0.5)
    )(logits, coded)
    assert all(mean.value == 0 for mean in padding.values())


def test_an_object_has_its_best_box_however_small_the_overlap():
    boxes = np.float32([[[0, 0, 4, 4], [40, 40, 50, 50]]])
    targets = {
        "boxes": jnp.asarray(boxes),
        "box_label": jnp.zeros((1, 2), jnp.int32),
        "box_valid": jnp.ones((1, 2), bool),
    }
    wanted = [10 * (2 - 5) / 10, 10 * (2 - 5) / 10, 5 * np.log(0.4), 5 * np.log(0.4)]
    coded = jnp.zeros((1, 4, 4)).at[0, 0].set(jnp.float32(wanted))
    found = jax.jit(lambda *a: losses(*a, jnp.asarray(ANCHORS), targets, 0.5))(
        jnp.zeros((1, 4, 3)), coded
    )
    assert found["bbox_regression"].weight == 2
    assert found["bbox_regression"].value == pytest.approx(0, abs=1e-6)
    # Two negatives are all that there are.
    assert found["classification"].value == pytest.approx(4 * np.log(3) / 2, rel=1e-6)


def test_suppression_class_by_class_is_that_of_all_classes():
    """With as many candidates as places, and where they fill no image."""
    rng = np.random.default_rng(3)
    count, classes, size = 40, 3, (50, 60)
    corner = rng.uniform(-5, 45, (2, count, 2))
    boxes = jnp.float32(np.concatenate([corner, corner + rng.uniform(3, 20, (2, count, 2))], -1))
    scores = jnp.float32(rng.uniform(0, 1, (2, count, classes)))
    for most in (30, 150):
        limits = {"score_threshold": 0.4, "nms_threshold": 0.3, "max_detections": most}
        detector = SimpleNamespace(candidates=count, **limits)

        @jax.jit
        def both(boxes, scores, detector=detector, limits=limits):
            ours = select_of_each_class(detector, scores, boxes, lambda coded, _: coded, size)
            labels = jnp.broadcast_to(jnp.arange(classes), scores.shape).reshape(2, -1)
            every = jnp.repeat(boxes, classes, 1)
            return ours, select(every, scores.reshape(2, -1), labels, size, **limits)

        ours, expected = both(boxes, scores)
        assert ours["boxes"].shape == (2, most, 4)
        assert ours["valid"][0].sum() > 20
        for key, value in expected.items():
            np.testing.assert_array_equal(ours[key], value)


def test_candidates_are_those_of_a_class():
    """A class with one low score is found beside one with many high ones."""
    boxes = jnp.float32([[[10 * k, 0, 10 * k + 5, 5] for k in range(6)]])
    scores = jnp.float32([[[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0], [0.5, 0], [0, 0.2]]])
    detector = SimpleNamespace(
        candidates=2, score_threshold=0.1, nms_threshold=0.5, max_detections=5
    )
    found = select_of_each_class(detector, scores, boxes, lambda coded, _: coded, (10, 100))
    np.testing.assert_array_equal(found["valid"], [[True, True, True, False, False]])
    np.testing.assert_array_equal(found["labels"], [[0, 0, 1, 0, 0]])
    np.testing.assert_allclose(found["scores"], [[0.9, 0.8, 0.2, 0, 0]])
