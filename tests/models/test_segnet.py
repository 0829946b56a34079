"""SegNet beyond its reference: sizes, widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError


def traced(shape, **options):
    model = models.create("segnet", **{"num_classes": 5, "width": 0.0625, **options})
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (360, 480)])
def test_keeps_any_size(size):
    # 360x480, the paper's CamVid, halves to 22.5 rows at the fourth stage.
    assert traced((1, *size, 3))[0].shape == (1, *size, 5)


def test_refuses_images_that_vanish():
    with pytest.raises(UserError, match="SegNet takes images of 32x32 or more; not of 31x40"):
        traced((1, 31, 40, 3))


def test_without_classes_it_has_no_head():
    features, variables = traced((1, 32, 32, 3), num_classes=0)
    assert features.shape == (1, 32, 32, 4)
    assert "head" not in variables["params"]


def test_odd_rows_are_those_of_a_larger_map():
    # The last row, which no window of the first pooling holds, comes back as zeros: the decoder
    # of a cropped image sees in all other rows what it sees of an image that ends there.
    model = models.create("segnet", 2, width=0.03, channels=(64,), depths=(1,))
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, 9, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    logits = model.apply(variables, image)
    assert logits.shape == (1, 9, 8, 2)
    even = model.apply(variables, image[:, :8])
    np.testing.assert_allclose(logits[:, :6], even[:, :6], atol=1e-5)
