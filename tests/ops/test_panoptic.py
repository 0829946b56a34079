"""Segments against mmdetection's fusion of masks and classes, and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import fusion

from jaxvision.data.masks import paste
from jaxvision.ops.forms import portable
from jaxvision.ops.panoptic import add_stuff, fuse, likeliest, number_masks
from jaxvision.ops.resize import resize
from jaxvision.ops.roi import paste_mask

GIVEN = fusion.inputs()


@partial(jax.jit, static_argnums=(0, 1))
def fused(overlap, area):
    arrays = (jnp.asarray(GIVEN[key]) for key in ("masks", "boxes", "valid", "logits"))
    return fuse(*arrays, fusion.SIZE, overlap, area)


@pytest.mark.parametrize("limits", fusion.LIMITS)
def test_segments_are_those_of_mmdetection(limits):
    expected = np.load(fusion.GOLDEN)["/".join(map(str, limits))]
    found = np.asarray(fused(*limits))
    ours = np.full_like(found, fusion.THINGS + fusion.STUFF)  # its number of void
    stuff = found > fusion.OBJECTS
    ours[stuff] = found[stuff] - fusion.OBJECTS - 1 + fusion.THINGS
    for row, labels in enumerate(GIVEN["labels"]):
        numbers = np.unique(found[row])
        numbers = numbers[(numbers > 0) & (numbers <= fusion.OBJECTS)]
        for place, number in enumerate(numbers, start=1):
            ours[row][found[row] == number] = labels[number - 1] + 1000 * place
    np.testing.assert_array_equal(ours, expected)
    assert (ours == fusion.THINGS + fusion.STUFF).any()


def test_batches_of_unknown_size():
    """What `jaxvision export` asks for."""
    (count,) = jax.export.symbolic_shape("b")
    names = ("masks", "boxes", "valid", "logits")
    given = (jax.ShapeDtypeStruct((count, *GIVEN[k].shape[1:]), GIVEN[k].dtype) for k in names)
    with portable():
        found = jax.eval_shape(partial(fuse, size=fusion.SIZE), *given)
    assert found.shape == (count, *fusion.SIZE)


def test_a_mask_on_its_image_is_that_of_the_host():
    masks, boxes = GIVEN["masks"][0], GIVEN["boxes"][0]
    boxes[:3] += [[-20, -9, -15, -4], [30, 20, 60, 70], [0, 0, 0.4, 0.6]]
    expected = paste(masks, boxes, fusion.SIZE).stack()
    found = jax.jit(jax.vmap(partial(paste_mask, size=fusion.SIZE)))(masks, boxes)
    np.testing.assert_array_equal(found, expected)


def test_the_likeliest_classes_are_those_of_the_whole_map():
    logits = jax.random.normal(jax.random.key(0), (2, 7, 5, 4))
    found = jax.jit(likeliest, static_argnums=1)(logits, (37, 21))
    expected = resize(logits, (37, 21)).argmax(-1)
    assert found.shape == (2, 37, 21)
    np.testing.assert_array_equal(found, expected)
    same = jax.jit(likeliest, static_argnums=1)(logits, (7, 5))
    np.testing.assert_array_equal(same, logits.argmax(-1))


def test_numbers_of_what_is_there():
    masks = np.zeros((4, 3, 10), bool)
    masks[0, :, :4] = masks[1, 1:, 2:6] = masks[2] = masks[3, 0, 8:] = True
    valid = np.array([True, True, False, True])
    found = jax.jit(number_masks, static_argnums=2)(np.packbits(masks, axis=-1), valid, 10)
    rows = [[1] * 4 + [0] * 4 + [4] * 2, *[[1] * 4 + [2] * 2 + [0] * 4] * 2]
    np.testing.assert_array_equal(found, rows)
    classes = np.array([[0] * 5 + [2] * 5, [0] * 9 + [255], [1] * 10], np.uint8)
    # Of two classes of stuff each has four pixels that are free.
    expected = np.array(rows)
    expected[0, 4], expected[1, 6:9], expected[2, 6:] = 5, 5, 6
    add = jax.jit(add_stuff, static_argnums=(2, 3, 4))
    np.testing.assert_array_equal(add(found, classes, 4, 2, 4), expected)
    classes[1, 8] = 1
    expected = np.where(expected == 5, 0, expected)
    expected[1, 8] = 6
    np.testing.assert_array_equal(add(found, classes, 4, 2, 4), expected)
