"""Applying a model and differentiating a task with one loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]


def of_loss(loss: Loss, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
    """(gradient of the parameters, auxiliary output) of `loss(params, model_state, batch, key)`."""
    (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.params, state.model_state, batch, key
    )
    return gradient, aux


def apply_train(
    model: Any, params: Any, model_state: Any, image: jax.Array, key: jax.Array, **inputs: Any
) -> tuple[Any, Any]:
    """(output in training mode, new model_state); `inputs` are the model's beside the image."""
    output, updated = model.apply(
        {"params": params, **model_state},
        image,
        train=True,
        **inputs,
        mutable=list(model_state),
        rngs={"dropout": key},
    )
    return output, {**model_state, **updated}


def apply_eval(model: Any, variables: dict[str, Any], image: jax.Array) -> jax.Array:
    """float32 output in evaluation mode."""
    return model.apply(variables, image, train=False).astype(jnp.float32)
