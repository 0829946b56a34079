"""OverFeat gives of all windows at once what it gives of each, and learns the right ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.detection.overfeat import decode, encode, heads_by_windows, losses

SMALL = {"hidden": (10, 9), "box_hidden": (8, 7), "dropout": 0.0}
UNPADDED = {"layers": ((5, 5, 2, 0, 2), (6, 3, 1, 0, 0), (7, 3, 1, 0, 2)), "kernel": 3, **SMALL}


def drawn(network, image):
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), image))
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda p: jnp.asarray(draw(0, 0.2, p.shape), p.dtype), like)


@pytest.mark.parametrize(("fine", "places"), [(False, 5 * 7 + 2 * 4), (True, 9 * 13 + 4 * 7)])
def test_all_windows_at_once_are_each_by_itself(fine, places):
    network = models.create("overfeat_fast", 3, fine=fine, scales=(1.0, 0.75), **UNPADDED)
    assert (network.window, network.apart) == (43, 4 if fine else 8)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 75, 93, 3)), jnp.float32)
    variables = drawn(network, image)
    at_once = jax.jit(lambda v, x: network.apply(v, x, method="heads"))(variables, image)
    alone = jax.jit(lambda v, x: heads_by_windows(network, v, x, batch=50))(variables, image)
    assert at_once["cls_logits"].shape == (2, places, 4)
    assert at_once["bbox_regression"].shape == (2, places, 4)
    for name, value in at_once.items():
        assert float(value.std()) > 0.1
        np.testing.assert_allclose(alone[name], value, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "side", "apart", "fine"),
    [("overfeat_fast", 231, 32, 16), ("overfeat_accurate", 221, 36, 12)],
)
def test_windows_are_those_of_the_paper(name, side, apart, fine):
    network = models.create(name, 999)
    assert (network.window, network.apart) == (side, apart)
    assert models.create(name, 999, fine=True).apart == fine
    for sides, places in (((side, side), 1), ((side + 2 * apart, side + apart), 6)):
        image = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
        found, _ = jax.eval_shape(
            lambda x: network.init_with_output(jax.random.key(0), x, method="heads"), image
        )
        assert found["cls_logits"].shape == (1, places, 1000)


def test_fine_windows_lie_between_the_others():
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 59, 59, 3)), jnp.float32)
    networks = [models.create("overfeat_fast", 3, fine=fine, **UNPADDED) for fine in (False, True)]
    variables = drawn(networks[0], image)
    coarse, fine = (
        jax.jit(lambda v, x, m=m: m.apply(v, x, method="heads")["cls_logits"])(variables, image)
        for m in networks
    )
    np.testing.assert_allclose(
        fine.reshape(5, 5, 4)[::2, ::2], coarse.reshape(3, 3, 4), rtol=1e-4, atol=1e-5
    )


def test_what_is_learnt():
    """Windows that overlap by half learn the object, those between 0.3 and 0.5 nothing."""
    network = models.create("overfeat_fast", 2, class_specific=True, negatives=1, **SMALL)
    windows = jnp.array([[0, 0, 10, 10], [0, 4, 10, 14], [0, 0, 10, 30], [0, 40, 10, 50.0]])
    windows = jnp.concatenate([windows, windows[3:] + jnp.array([0, 10, 0, 10.0])])
    targets = {
        "boxes": jnp.array([[[0, 0, 10, 8], [20, 20, 21, 21.0]]]),
        "box_label": jnp.array([[1, 0]]),
        "box_valid": jnp.array([[True, False]]),
    }
    # IoU: 0.8, 4 / 14, 8 / 30, 0, 0.
    logits = jnp.zeros((1, 5, 3)).at[0, 4].set(jnp.array([0.0, 3.0, 0.0]))
    coded = jnp.zeros((1, 5, 8)).at[0, 0, 4:].set(jnp.array([0.0, 0.0, 1.0, 0.5]))
    found = losses(network, logits, coded, windows, targets)
    hardest = np.log(2 + np.exp(3))
    np.testing.assert_allclose(found["classification"].value, np.log(3) + hardest, rtol=1e-6)
    np.testing.assert_allclose(found["bbox_regression"].value, 0.3**2, rtol=1e-5)
    # As an overlap of 4 / 14 is now between, and so is 0.8: nothing is learnt.
    looser = network.clone(overlaps=(0.2, 0.9))
    assert float(losses(looser, logits, coded, windows, targets)["classification"].total) == 0


def test_boxes_in_parts_of_windows():
    window = jnp.array([10.0, 20, 30, 60])
    coded = encode(jnp.array([10.0, 30, 25, 80]), window)
    np.testing.assert_allclose(coded, [0, 0.25, 0.75, 1.5])
    np.testing.assert_allclose(decode(coded, window), [10, 30, 25, 80])


def test_a_new_network_gives_its_windows():
    image = jnp.zeros((1, 51, 43, 3))
    network = models.create("overfeat_fast", 2, score_threshold=0.0, nms_threshold=1.0, **UNPADDED)
    network = network.clone(max_detections=4, fine=False)
    found, _ = jax.jit(lambda x: network.init_with_output(jax.random.key(0), x))(image)
    boxes = np.unique(np.asarray(found["boxes"][0]), axis=0)
    np.testing.assert_allclose(boxes, [[0, 0, 43, 43], [0, 8, 43, 51]], atol=1e-5)


def test_what_does_not_fit():
    image = jnp.zeros((1, 42, 60, 3))
    network = models.create("overfeat_fast", 2, **UNPADDED)
    with pytest.raises(UserError, match=r"windows have 43x43 pixels; at scale 1\.0 .* have 42x60"):
        network.init(jax.random.key(0), image)
    encoded = models.create("sliding_window", 2, fine=True)
    with pytest.raises(UserError, match="leave out the encoder"):
        jax.eval_shape(lambda: encoded.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))
    with pytest.raises(UserError, match="own layers alone"):
        heads_by_windows(encoded, {}, image)
