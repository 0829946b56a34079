"""The autoencoder: what it learns, and what it hands on to segmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.pretrained import load_state

SMALL = {"widths": (8, 12)}


def made(classes, seed=0, **options):
    model = models.create("autoencoder", classes, **SMALL, **options)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    draw = np.random.default_rng(seed).normal
    return model, jax.tree.map(lambda p: jnp.asarray(draw(0, 0.2, p.shape), p.dtype), like)


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("size", [(16, 16), (9, 30)])
def test_keeps_any_size(classes, size):
    model = models.create("autoencoder", classes, **SMALL)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert found.shape == (1, *size, classes or 3)


def test_negative_latent():
    with pytest.raises(UserError, match="latent=-1"):
        jax.eval_shape(lambda: made(0, latent=-1))


@pytest.mark.slow
def test_learns_to_reconstruct():
    # Squares of one colour on another: a few numbers say all about such an image.
    rng = np.random.default_rng(0)
    images = np.empty((64, 16, 16, 3), np.float32)
    images[:] = rng.uniform(-1, 1, (64, 1, 1, 3))
    for image, (top, left) in zip(images, rng.integers(0, 9, (64, 2)), strict=True):
        image[top : top + 8, left : left + 8] = rng.uniform(-1, 1, 3)
    model = models.create("autoencoder", 0, **SMALL, latent=32)
    key = jax.random.key(0, impl="rbg")  # compiles sooner
    variables = jax.jit(model.init)(key, images)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(variables, state):
        def loss(params):
            y, new = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.mean((y - images) ** 2), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        update, state = optimizer.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], update), **new}, state, value

    state, losses = optimizer.init(variables["params"]), []
    for _ in range(250):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    # The mean colour of each image would leave its squares.
    per_image = images - images.mean((1, 2), keepdims=True)
    assert losses[-1] < 0.3 * np.mean(per_image**2)
    assert losses[-1] < 0.05 * losses[0]


def test_reconstruction_initialises_segmentation():
    model, variables = made(5)
    state = torch_weights.to_state_dict(made(0, seed=1)[1])
    entry = models.variant("autoencoder")
    ours = load_state(entry, model, state, variables, "theirs", fine_tune=True)["params"]
    np.testing.assert_array_equal(ours["score"]["bias"], variables["params"]["score"]["bias"])
    kernel = torch_weights.to_state_dict({"params": ours})["decoder.1.deconv.weight"]
    np.testing.assert_array_equal(kernel, state["decoder.1.deconv.weight"])
