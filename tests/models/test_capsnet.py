"""What golden files do not show of CapsNet: reconstruction, and how it is trained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.models.backbones.capsnet import dynamic_routing, squash
from jaxvision.tasks import default_config
from jaxvision.tasks.base import image_spec

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(size=(3, 18, 20, 1)), jnp.float32)
SMALL = {"width": 4, "types": 2, "primary": 3, "capsule": 5}


def network():
    model = models.create("capsnet_decoder", 4, **SMALL)
    return model, jax.jit(model.init)(jax.random.key(0), IMAGE)


def test_squash_keeps_directions_and_bounds_lengths():
    s = jnp.array([[3.0, 4.0], [0.0, 1e-3], [0.0, 0.0]])
    v = squash(s)
    np.testing.assert_allclose(jnp.linalg.norm(v, axis=-1), [25 / 26, 1e-6, 0], rtol=0.01)
    np.testing.assert_allclose(v[0] / s[0], 25 / 26 / 5, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda s: squash(s).sum())(s)).all()


def test_routing_prefers_capsules_that_agree():
    votes = jnp.asarray([[[[1.0, 0.0]], [[1.0, 0.1]], [[-1.0, 0.3]]]])  # three votes for one
    votes = jnp.concatenate([votes, jnp.zeros_like(votes)], axis=2)
    lengths = [float(jnp.linalg.norm(dynamic_routing(votes, n)[0, 0])) for n in (1, 3, 6)]
    assert lengths == sorted(lengths)


def test_the_reconstruction_is_that_of_the_label_or_the_longest_capsule():
    model, variables = network()
    assert jax.eval_shape(model.apply, variables, IMAGE).shape == (3, 4)
    found = jax.jit(partial(model.apply, train=True))(variables, IMAGE)
    assert found["reconstruction"].shape == IMAGE.shape
    longest = found["logits"].argmax(-1)

    @jax.jit
    def reconstruct(variables, label):
        return model.apply(variables, IMAGE, True, label)["reconstruction"]

    apply = partial(reconstruct, variables)
    np.testing.assert_array_equal(apply(longest), found["reconstruction"])
    np.testing.assert_array_equal(apply(jax.nn.one_hot(longest, 4)), found["reconstruction"])
    assert not np.allclose(apply((longest + 1) % 4), found["reconstruction"], atol=1e-7)
    # The decoder sees the others as zeros: whatever the image, these weights do not matter.
    kernel = variables["params"]["decoder_0"]["kernel"]
    other = {**variables["params"], "decoder_0": {"kernel": kernel.at[5:].set(7), "bias": 1.0}}
    other["decoder_0"]["bias"] = variables["params"]["decoder_0"]["bias"]
    label = jnp.zeros(3, jnp.int32)
    changed = reconstruct({"params": other}, label)
    np.testing.assert_allclose(changed, apply(label), rtol=1e-6)


def test_too_small_images():
    with pytest.raises(UserError, match="17x17"):
        models.create("capsnet").init(jax.random.key(0), jnp.zeros((1, 16, 28, 1)))


def test_the_task_adds_the_errors_of_the_reconstruction():
    config = default_config()
    config.model.name, config.model.options = "capsnet_decoder", SMALL
    config.classification.loss = "margin"
    config.data.mean, config.data.std = (0.0,), (1.0,)
    batch = {
        "image": jnp.asarray(RNG.integers(0, 256, (3, 18, 18, 1)), jnp.uint8),
        "label": jnp.array([0, 3, 1]),
        "valid": jnp.array([True, True, False]),
    }

    def loss(weight):
        config.classification.reconstruction_weight = weight
        task = tasks.create(config, Facts(tuple("abcd")))
        variables = task.init(jax.random.key(0), image_spec((18, 18, 1)))
        loss = jax.jit(lambda params: task.loss(params, {}, batch, jax.random.key(1))[0].value)
        return task, variables, loss(variables["params"])

    _, _, without = loss(0.0)
    task, variables, whole = loss(0.01)
    image = batch["image"] / 255
    found = jax.jit(partial(task.model.apply, train=True))(variables, image, label=batch["label"])
    squares = jnp.square(found["reconstruction"] - image).sum((1, 2, 3))
    assert float(whole - without) == pytest.approx(0.01 * float(squares[:2].mean()), rel=1e-5)
    assert float(without) == pytest.approx(
        float(jnp.where(batch["valid"], task._losses(found["logits"], batch["label"])[0], 0).sum())
        / 2,
        rel=1e-5,
    )
