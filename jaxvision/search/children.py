"""Training many small networks at once, as one program."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxvision.ops.pooling import avg_pool2d
from jaxvision.ops.windows import Window, window_patches
from jaxvision.search.space import Space


class Data(NamedTuple):
    """Images in 0..1 and their classes: to train on, and to reward by."""

    train_images: Float[Array, "n h w c"]
    train_labels: Int[Array, " n"]
    valid_images: Float[Array, "m h w c"]
    valid_labels: Int[Array, " m"]


def initial(space: Space, key: Array, channels: int, classes: int) -> dict[str, Array]:
    """Parameters of the largest network; He normal over the largest fan-in that it has."""
    side, width = max(space.sides), max(space.widths)
    params = {}
    for layer, layer_key in enumerate(jax.random.split(key, space.layers)):
        inputs = width if layer else channels
        shape = (side * side * inputs, width)
        params[f"kernel{layer}"] = jax.random.normal(layer_key, shape) * (2 / shape[0]) ** 0.5
        params[f"scale{layer}"], params[f"bias{layer}"] = jnp.ones(width), jnp.zeros(width)
    head = jax.random.normal(jax.random.fold_in(key, space.layers), (width, classes))
    return params | {"head": head / width**0.5, "head_bias": jnp.zeros(classes)}


def logits(
    space: Space, params: dict[str, Array], decisions: Int[Array, " d"], image: Array
) -> Float[Array, "b k"]:
    """What the network of the decisions says of images [b, h, w, c].

    Convolution, batch norm, ReLU. The norm uses the statistics of the images at hand, in validation
    too, where they are many.
    """
    taps, filters, inputs = space.masks(decisions)
    side, half = max(space.sides), max(space.sides) // 2
    window = Window((side, side), (1, 1), (1, 1), ((half, half), (half, half)))
    outputs: list[Array] = []
    x = image
    for layer in range(space.layers):
        if layer:
            x = jnp.einsum("i,ibhwc->bhwc", inputs[layer, :layer], jnp.stack(outputs))
        # The children differ in their kernels: a product over patches is one product for all of
        # them, where a convolution would become a grouped one.
        patches = window_patches(x, window)
        mask = jnp.repeat(taps[layer].reshape(-1), x.shape[-1])
        kernel = params[f"kernel{layer}"] * mask[:, None]
        y = patches.reshape(*x.shape[:3], -1) @ kernel
        y = (y - y.mean((0, 1, 2))) * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-5)
        y = y * params[f"scale{layer}"] + params[f"bias{layer}"]
        outputs.append(jax.nn.relu(y) * filters[layer])
        if layer in space.pool_after:
            outputs = [avg_pool2d(y, 2) for y in outputs]
    return outputs[-1].mean((1, 2)) @ params["head"] + params["head_bias"]


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def train_children(
    space: Space,
    decisions: Int[Array, "p d"],
    key: Array,
    data: Data,
    classes: int,
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 3e-2,
) -> Float[Array, " p"]:
    """Trains a population of networks side by side; the validation accuracy of each.

    All see the same batches in the same order; each has initial weights of its own.

    Args:
      space: what the decisions mean.
      decisions: one network a row.
      key: decides weights and batches.
      data: see `Data`.
      classes: how many there are.
      steps: of Adam, the rate falling along a cosine.
      batch_size: images a step.
      learning_rate: the first.
    """
    of_weights, of_batches = jax.random.split(key)
    update = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    channels = data.train_images.shape[-1]
    rows = jax.random.randint(of_batches, (steps, batch_size), 0, len(data.train_labels))

    def train(weights_key: Array, chosen: Array) -> Array:
        params = initial(space, weights_key, channels, classes)

        def loss(params: dict[str, Array], batch: Array) -> Array:
            out = logits(space, params, chosen, data.train_images[batch])
            labels = data.train_labels[batch]
            return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

        def step(carry, batch):
            params, state = carry
            updates, state = update.update(jax.grad(loss)(params, batch), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, update.init(params)), rows)
        guess = logits(space, params, chosen, data.valid_images).argmax(-1)
        return (guess == data.valid_labels).mean()

    return jax.vmap(train)(jax.random.split(of_weights, len(decisions)), decisions)
