"""The feature pyramid by hand; detectors compare it with torchvision (models/test_detectors.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.layers.fpn import FeaturePyramid


def constant(side, value):
    return jnp.full((1, side, side + 1, 3), value, jnp.float32)


def test_finer_maps_hear_coarser_ones():
    """Each 1x1 kernel sums the 3 channels, each 3x3 kernel takes its centre."""
    network = FeaturePyramid(1)
    maps = [constant(7, 1.0), constant(4, 10.0), constant(2, 100.0)]
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), maps))["params"]

    def kernel(path, leaf):
        if leaf.ndim == 1:
            return jnp.zeros(leaf.shape)
        return jnp.zeros(leaf.shape).at[leaf.shape[0] // 2, leaf.shape[0] // 2].set(1)

    params = jax.tree_util.tree_map_with_path(kernel, params)
    found = jax.jit(lambda p: network.apply({"params": p}, maps))(params)
    assert [x.shape for x in found] == [(1, 7, 8, 1), (1, 4, 5, 1), (1, 2, 3, 1)]
    assert [float(np.unique(x)[0]) for x in found] == [333.0, 330.0, 300.0]


@pytest.mark.parametrize(
    ("extra", "sides"), [("", (8, 4)), ("pool", (8, 4, 2)), ("last", (8, 4, 2, 1))]
)
def test_extra_maps(extra, sides):
    network = FeaturePyramid(5, extra, norm=True)
    maps = [jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4, 4, 6))]
    found, variables = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), maps))
    assert [x.shape for x in found] == [(1, side, side, 5) for side in sides]
    assert "bias" not in variables["params"]["inner_blocks_0_0"]


@pytest.mark.parametrize(("extra", "channels"), [("last", 5), ("encoder", 6)])
def test_the_first_extra_map_reads_p5_or_c5(extra, channels):
    maps = [jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4, 4, 6))]
    params = jax.eval_shape(lambda: FeaturePyramid(5, extra).init(jax.random.key(0), maps))
    assert params["params"]["extra_blocks.p6"]["kernel"].shape == (3, 3, channels, 5)


def test_unknown_extra_maps():
    maps = [jnp.zeros((1, 8, 8, 3))]
    with pytest.raises(UserError, match=r"'lost'.*'last'"):
        jax.eval_shape(lambda: FeaturePyramid(5, "lost").init(jax.random.key(0), maps))
