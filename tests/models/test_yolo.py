"""YOLO by hand: which anchor learns which object, and the losses of a few cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.detection import yolov1, yolov2, yolov3
from jaxvision.ops.matching import BACKGROUND, IGNORED

ANCHORS = [(16, 16), (40, 40)]


def places(size=(4, 4)):
    """Two anchors in each cell of 16 pixels."""
    return yolov3._places(size, 16, ANCHORS)


def assigned(boxes, valid=None, size=(4, 4)):
    """[rows, columns, anchors]."""
    boxes = jnp.asarray(boxes, jnp.float32)
    valid = jnp.ones(len(boxes), bool) if valid is None else jnp.asarray(valid)
    return np.asarray(yolov3.assign(places(size), boxes, valid)).reshape(*size, -1)


def test_an_anchor_of_the_cell_learns_an_object():
    found = assigned([[16, 16, 32, 32], [36, 29, 76, 69]])  # in cells (1, 1) and (3, 3)
    assert found[1, 1].tolist() == [0, BACKGROUND]
    assert found[3, 3].tolist() == [BACKGROUND, 1]
    # The large one is also overlapped by more than half, 1240 / 1960, in the cell above.
    assert np.argwhere(found == IGNORED).tolist() == [[2, 3, 1]]


def test_an_object_that_overlaps_no_anchor_by_half_has_its_best_one():
    found = assigned([[18, 20, 22, 28]])
    assert found[1, 1].tolist() == [0, BACKGROUND]
    assert (found >= 0).sum() == 1
    # One that overlaps the second anchor by more than half as well is learnt by that alone.
    found = assigned([[8, 8, 40, 40]])
    assert found[1, 1].tolist() == [BACKGROUND, 0]


def test_the_last_of_two_objects_of_a_cell_has_the_anchor():
    alike = [[16, 16, 32, 32], [17, 16, 33, 32]]
    assert assigned(alike)[1, 1].tolist() == [1, BACKGROUND]
    assert assigned(alike, [True, False])[1, 1].tolist() == [0, BACKGROUND]
    assert (assigned(alike, [False, False]) == BACKGROUND).all()


def test_an_object_at_the_edge_is_in_the_last_cell():
    found = assigned([[63.9, 63.9, 64.3, 64.3]])
    assert found[3, 3].tolist() == [BACKGROUND, 0]


def cells(**changed):
    """Two boxes in each of 1x2 cells of an image of 40x20 pixels."""
    shape = (1, 1, 2, 2)
    sides = jnp.full((*shape, 2), 0.25).at[..., 1, :].set(1.0)
    values = {
        "centers": jnp.broadcast_to(
            jnp.array([[0.25, 0.5], [0.75, 0.5]])[None, None, :, None], (*shape, 2)
        ),
        "sides": sides,
        "roots": jnp.sqrt(sides),
        "objectness": jnp.array([0.5, 0.25, 0.125, 0.0]).reshape(shape),
        "classes": jnp.full((1, 1, 2, 1, 2), 0.5),
    }
    return yolov1.Cells(**values | changed)


def targets(boxes, labels):
    return {
        "boxes": jnp.asarray([boxes], jnp.float32),
        "box_label": jnp.asarray([labels]),
        "box_valid": jnp.ones((1, len(boxes)), bool),
        "valid": jnp.ones(1, bool),
    }


def test_losses_of_cells():
    # Shares (0, 0.25, 0.5, 0.75), which the first cell's boxes overlap by 1/4 and 1/4: the first of
    # equals learns it; and the second cell's larger box itself, cut off at 0.5 and 1.
    wanted = targets([[0, 5, 20, 15], [20, 0, 40, 20]], [1, 0])
    found = {k: float(v.value) for k, v in yolov1.losses(cells(), wanted, (20, 40)).items()}
    own = 0.25**2 / (0.5 * 0.5)
    second = 0.5 / 1.0
    assert found == pytest.approx(
        {
            "obj_loss": (own - 0.5) ** 2 + (second - 0.0) ** 2,
            "noobj_loss": 0.5 * (0.25**2 + 0.125**2),
            "bbox_loss": 5 * (2 * (0.5**0.5 - 0.5) ** 2 + (0.5**0.5 - 1) ** 2),
            "clf_loss": 4 * 0.25,
        }
    )


def test_a_pair_of_objects_has_the_losses_of_both():
    """Each is compared with its own sides, not with those of all."""
    one, two = [0, 5, 20, 15], [20, 0, 40, 20]

    def boxes(*chosen):
        return float(
            yolov1.losses(cells(), targets(chosen, [0] * len(chosen)), (20, 40))["bbox_loss"].value
        )

    assert boxes(one, two) == pytest.approx(boxes(one) + boxes(two))


def test_sides_that_are_rounded_to_nothing_have_a_gradient():
    wanted = targets([[8, 8, 40, 40]], [0])

    def loss(predictions):
        found = yolov1.activated(predictions, jnp.zeros((1, 1, 1, 2)))
        return sum(ratio.value for ratio in yolov1.losses(found, wanted, (64, 64)).values())

    assert np.isfinite(jax.grad(loss)(jnp.full((1, 1, 1, 2, 5), -200.0))).all()


def test_fold_keeps_all_values():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    found = yolov2.fold(x, (2, 3))
    assert found.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(found[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])
    with pytest.raises(UserError, match="multiples of 32"):
        yolov2.fold(x, (2, 2))


REDUCED = {
    "yolov1": {"width": 8, "hidden": 8, "stride": 1},
    "yolov2": {"width": 8, "passthrough": 4},
    "yolov3": {"widths": (4, 6, 8)},
}


@pytest.mark.parametrize("name", REDUCED)
def test_on_another_encoder(name):
    network = models.create(name, 3, encoder="resnet18", max_detections=7, **REDUCED[name])
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    found, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), image)
    assert found["boxes"].shape == (2, 7, 4)
    heads, _ = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, method="heads"), image
    )
    counts = {"yolov1": 2 * 3 * 2, "yolov2": 2 * 3 * 5, "yolov3": 3 * (6 + 24 + 96)}
    assert heads["box"].shape == (2, counts[name], 4)


def test_a_map_needs_its_own_anchors():
    network = models.create("yolov3", 3, encoder="resnet18", strides=(16, 32))
    with pytest.raises(UserError, match=r"2 strides; widths \(3\)"):
        jax.eval_shape(lambda x: network.init(jax.random.key(0), x), jnp.zeros((1, 64, 64, 3)))


def test_anchors_are_weights():
    """Those of a file are used: boxes mean nothing beside others."""
    network = models.create("yolov2", 3, encoder="darknet19", anchors=((0.25, 0.5),))
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x), jnp.zeros((1, 64, 64, 3))
    )
    assert variables["batch_stats"]["anchors"].shape == (1, 2)
    entry = models.variant("yolov2")
    state = {
        "anchors": 0,
        "backbone.stem.0.weight": 1,
        "backbone.layers.0.1.weight": 2,
        "head.bias": 3,
    }
    moved = entry.convert(state)
    assert list(moved) == [
        "anchors",
        "backbone.features.stem.0.weight",
        "backbone.features.layers.0.1.weight",
        "head.bias",
    ]
    assert entry.export(moved) == state
    others = {"backbone.layers.0.weight": 1}  # of another encoder
    assert entry.convert(others) == others == entry.export(others)
