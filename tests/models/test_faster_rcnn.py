"""Faster R-CNN: published files, what is drawn and what is left out, refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop.torch_weights import to_state_dict, to_variables, torch_shapes
from jaxvision.models.detection.roi_heads import detect, draw
from jaxvision.models.detection.rpn import Proposals, Sampling, rpn_losses
from jaxvision.models.detection.targets import Boxes, learnable

KEY = jax.random.key(0)
SMALL = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1, 1, 1, 1)},
    "width": 8,
    "head_hidden": (8, 8),
    "candidates": (20, 20),
    "proposals": (6, 6),
}


def small(name="fasterrcnn_resnet50_fpn", **options):
    return models.create(name, 3, **SMALL, **options)


def shapes(network, side=64):
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: network.init(KEY, x), x)


def test_published_files_of_2019_load():
    """Their convolutions have other names, and their norms add nothing to the variance."""
    like = shapes(small())
    state = {name: np.full(shape, 2.0) for name, shape in torch_shapes(like).items()}
    nested = re.compile(r"(rpn\.head\.conv|_blocks\.\d)(\.0)+\.(?=weight|bias)")
    old = {nested.sub(r"\1.", name): value for name, value in state.items()}
    assert {"rpn.head.conv.weight", "backbone.fpn.layer_blocks.3.bias"} <= set(old)
    convert = models.variant("fasterrcnn_resnet50_fpn").convert
    found = to_variables(convert(old), like)
    var = found["batch_stats"]["backbone.body"]["bn1"]["var"]
    np.testing.assert_allclose(var + 1e-5, 2.0, rtol=1e-7)
    # Files of today, with or without counts, are taken as they are.
    now = to_state_dict(to_variables(convert(state), like))
    assert all(np.all(value == 2) for name, value in now.items() if "tracked" not in name)


def test_vgg_is_named_as_in_torchvision_both_ways():
    entry = models.variant("fasterrcnn_vgg16")
    state = {"backbone.28.weight": np.zeros(1), "rpn.head.bbox_pred.bias": np.zeros(1)}
    ours = entry.convert(state)
    assert set(ours) == {"backbone.body.features.28.weight", "rpn.head.bbox_pred.bias"}
    assert entry.convert(ours) == ours
    assert entry.export(ours) == state


def truth(boxes, valid, rows=None):
    boxes = jnp.asarray(boxes, jnp.float32)
    rows = jnp.ones(len(boxes), bool) if rows is None else jnp.asarray(rows)
    labels = jnp.broadcast_to(jnp.arange(boxes.shape[1]), boxes.shape[:2])
    return Boxes(boxes, labels, jnp.asarray(valid), rows)


BOXES = [[[0, 0, 10, 10], [20, 20, 40, 40]]] * 2
PLACES = [[0, 0, 10, 9], [20, 21, 40, 40], [50, 50, 60, 60], [52, 50, 60, 60], [0, 0, 0, 0]]


def test_proposals_are_drawn_with_the_objects_themselves():
    boxes = jnp.tile(jnp.asarray(PLACES, jnp.float32), (2, 1, 1))
    valid = jnp.tile(jnp.array([True, True, True, True, False]), (2, 1))
    proposals = Proposals(boxes, valid.astype(jnp.float32), valid)
    objects = truth(BOXES, [[True, True], [True, False]])
    sampling = Sampling(6, 0.5, 0.5, 0.5)
    found = jax.jit(lambda p, o: draw(p, o, sampling, KEY))(proposals, objects)
    # Image 0: of four positives (two proposals, two objects) three; both negatives.
    np.testing.assert_array_equal((found.labels > 0).sum(1), [3, 2])
    np.testing.assert_array_equal(found.valid.sum(1), [5, 5])
    assert set(np.unique(found.labels[0])) == {0, 1, 2}
    assert set(np.unique(found.labels[1])) == {0, 1}
    own = np.all(np.asarray(found.boxes[1]) == [0, 0, 10, 10], -1)
    np.testing.assert_array_equal(found.wanted[1][own], np.zeros((1, 4)))


def test_padding_and_crowds_are_not_learnt_from():
    anchors = jnp.asarray(PLACES, jnp.float32)
    logits, deltas = jnp.zeros((2, 5)), jnp.zeros((2, 5, 4))
    sampling = Sampling(256, 0.5, 0.7, 0.3)

    @jax.jit
    def losses(objects):
        return rpn_losses(logits, deltas, anchors, objects, sampling, KEY)

    valid = [[True, True]] * 2
    both, first = losses(truth(BOXES, valid)), losses(truth(BOXES, valid, [True, False]))
    for name, ratio in both.items():
        assert ratio.weight == 2 * first[name].weight > 0
        np.testing.assert_allclose(ratio.total, 2 * first[name].total, rtol=1e-6)
    assert both["loss_objectness"].value == pytest.approx(np.log(2))
    targets = {
        "boxes": jnp.zeros((1, 2, 4)),
        "box_label": jnp.zeros((1, 2), jnp.int32),
        "box_valid": jnp.array([[True, True]]),
        "box_crowd": jnp.array([[False, True]]),
    }
    np.testing.assert_array_equal(learnable(targets).valid, [[True, False]])


def test_detections_have_no_background_and_some_size():
    """Three proposals, of which one is empty and one is padding; class 1 is the second of three."""
    boxes = jnp.array([[[0, 0, 8, 8], [4, 4, 4, 9], [0, 0, 8, 8.0]]])
    proposals = Proposals(boxes, jnp.ones((1, 3)), jnp.array([[True, True, False]]))
    logits = jnp.tile(jnp.log(jnp.array([0.5, 0.1, 0.3, 0.1])), (1, 3, 1))
    form = jax.jit(lambda z, d: detect(z, d, proposals, (16, 16), 0.2, 0.5, 4))
    found = form(logits, jnp.zeros((1, 3, 4, 4)))
    np.testing.assert_array_equal(found["valid"], [[True, False, False, False]])
    assert found["labels"][0, 0] == 1
    np.testing.assert_allclose(found["scores"][0, 0], 0.3, rtol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, 0], [0, 0, 8, 8], atol=1e-6)


def test_frozen_statistics_stay():
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    targets = {
        "boxes": jax.ShapeDtypeStruct((2, 1, 4), jnp.float32),
        "box_label": jax.ShapeDtypeStruct((2, 1), jnp.int32),
        "box_valid": jax.ShapeDtypeStruct((2, 1), bool),
    }
    network = small(frozen_statistics=True)

    def changed(variables, x, targets):
        _, new = network.apply(
            variables, x, True, targets, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        return new

    # What is not written comes out as it went in: no primitive computes it.
    jaxpr = jax.make_jaxpr(changed)(shapes(network), x, targets).jaxpr
    assert all(out in jaxpr.invars for out in jaxpr.outvars)


def test_what_is_refused():
    with pytest.raises(UserError, match="anchor_sizes for 2 maps, but the pyramid has 5"):
        shapes(small(anchor_sizes=((8,), (16,))))
    with pytest.raises(UserError, match="FasterRCNN needs an encoder with a map of stride 64"):
        shapes(small(strides=(32, 64)))
    network = small()
    with pytest.raises(UserError, match="needs targets: boxes, box_label"):
        jax.eval_shape(
            lambda v, x: network.apply(v, x, train=True, rngs={"dropout": KEY}, mutable=True),
            shapes(network),
            jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
        )
