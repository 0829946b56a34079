"""Networks of heat maps: what they return, names of layers, weights of other key points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights

SMALL = {
    "hourglass2": {"features": 16, "depth": 2},
    "simple_baseline_resnet50": {
        "encoder_options": {"depths": (1, 1, 1, 1)},
        "widths": (8, 8, 8),
    },
}


def shapes_of(model, image=(2, 64, 96, 3), train=False):
    """(what is returned, variables), by shape."""
    x = jax.ShapeDtypeStruct(image, jnp.float32)
    _, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    mutable = ["batch_stats"]
    found = jax.eval_shape(lambda v, x: model.apply(v, x, train=train, mutable=mutable)[0],
                           variables, x)  # fmt: skip
    return found, variables


@pytest.mark.parametrize("name", SMALL)
def test_heat_maps_have_a_quarter_of_the_sides(name):
    model = models.create(name, 5, dtype=jnp.bfloat16, **SMALL[name])
    found, variables = shapes_of(model)
    assert (found.shape, found.dtype) == ((2, 16, 24, 5), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_training_gives_the_heat_maps_of_all_stacks():
    model = models.create("hourglass8", 5, features=16, depth=1, stacks=3)
    found, _ = shapes_of(model, train=True)
    assert list(found) == ["aux1", "aux2", "logits"]
    assert {one.shape for one in found.values()} == {(2, 16, 24, 5)}


@pytest.mark.parametrize("name", SMALL)
def test_first_and_last_layers_exist(name):
    _, variables = shapes_of(models.create(name, 5, **SMALL[name]))
    names = torch_weights.torch_shapes(variables)
    entry = models.variant(name)
    assert {f"{layer}.weight" for layer in (entry.first, *entry.classifier)} <= set(names)


def test_any_encoder():
    model = models.create(
        "simple_baseline_resnet50", 5, encoder="mobilenet_v2", encoder_options={}, widths=(8,)
    )
    assert shapes_of(model)[0].shape == (2, 4, 6, 5)
    features, variables = shapes_of(model.clone(num_classes=0))
    assert features.shape == (2, 4, 6, 8)
    assert "final_layer" not in variables["params"]


def test_images_that_hourglasses_leave_nothing_of():
    model = models.create("hourglass1", 5, features=16, depth=3)
    assert shapes_of(model, (1, 31, 33, 3))[0].shape == (1, 8, 8, 5)
    with pytest.raises(UserError, match="31x31 or more; not of 30x33"):
        shapes_of(model, (1, 30, 33, 3))
    with pytest.raises(UserError, match="model with features 'hourglass1'"):
        models.create("hourglass1", 0)


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_other_key_points_start_a_training(name):
    """As from a run on shapes: all but what belongs to the key points is loaded."""
    rng = np.random.default_rng(0)
    made = [models.create(name, count, **SMALL[name]) for count in (4, 14)]
    ours, fresh = (
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), shapes_of(model)[1])
        for model in made
    )
    weights = pretrained.Weights(torch_weights.to_state_dict(ours), "a run")
    loaded = pretrained.load_into(name, made[1], weights, dict(fresh), fine_tune=True)
    entry = models.variant(name)
    same, afresh = set(), set()
    state = torch_weights.to_state_dict(loaded)
    for key, value in torch_weights.to_state_dict(ours).items():
        layer = key.rpartition(".")[0]
        if layer in entry.classifier:
            afresh.add(layer)
        else:
            np.testing.assert_array_equal(state[key], value)
            same.add(key)
    assert afresh == set(entry.classifier)
    assert len(same) > 50
    new = torch_weights.to_state_dict(fresh)
    for layer in entry.classifier:
        np.testing.assert_array_equal(state[f"{layer}.weight"], new[f"{layer}.weight"])


def test_the_encoder_of_a_simple_baseline_is_beside_its_head_in_the_reference():
    entry = models.variant("simple_baseline_resnet50")
    state = {
        "conv1.weight": 1, "layer1.0.bn1.running_mean": 2, "deconv_layers.0.weight": 3,
        "final_layer.bias": 4,
    }  # fmt: skip
    ours = entry.convert(state)
    assert set(ours) == {
        "encoder.conv1.weight", "encoder.layer1.0.bn1.running_mean", "deconv_layers.0.weight",
        "final_layer.bias",
    }  # fmt: skip
    assert entry.convert(ours) == ours
    assert entry.export(ours) == state
