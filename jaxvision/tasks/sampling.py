"""What tasks that make images have in common: latents, and images that are made of them.

A task that inherits from `Generative` draws latents and makes images of them, each decided by a key
of its own. Samples, interpolations and walks follow.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvision.ops.sharing import spread
from jaxvision.tasks.base import Variables


@dataclass(frozen=True)
class Sampling:
    """What may be asked of samples; a task says which of it it understands.

    Attributes:
      truncation: how far from their mean latents may be: 1 as in training, 0 is the mean itself.
      guidance: how much a class is exaggerated; None is as configured.
      steps: of the sampler; None is as configured.
      sampler: its name; "" is as configured.
    """

    truncation: float = 1.0
    guidance: float | None = None
    steps: int | None = None
    sampler: str = ""


AS_TRAINED = Sampling()


@dataclass(frozen=True)
class Control:
    """How a person turns a setting of samples.

    Attributes:
      default: as configured.
      least, most, step: of numbers.
      choices: of names; numbers have none.
    """

    default: float | int | str
    least: float = 0
    most: float = 1
    step: float = 0.1
    choices: tuple[str, ...] = ()


class Generative:
    """A task that makes images of latents.

    Attributes:
      settings: the fields of `Sampling` that it understands, and `labels` where it makes images of
        a class that is asked for.
    """

    settings: ClassVar[tuple[str, ...]] = ()

    def latents(self, keys: Array) -> Float[Array, "b ..."]:
        """Standard normal latents, of each key [b]; empty where the keys alone decide."""
        raise NotImplementedError

    def controls(self) -> dict[str, Control]:
        """How a person turns the `settings` that make a difference as the task is configured."""
        return {"truncation": Control(1.0)} if "truncation" in self.settings else {}

    def check_mask(self, mask: Bool[np.ndarray, "h w"]) -> None:
        """Whether what it marks can be made anew, of tasks with `inpaint`.

        Raises:
          UserError: it cannot.
        """
        return None

    def generate(
        self,
        variables: Variables,
        latents: Float[Array, "b ..."],
        keys: Array,
        labels: Int[Array, " b"] | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> UInt8[Array, "b h w c"]:
        """Images of latents.

        Args:
          variables: of the task.
          latents: what images are made of.
          keys: [b]; of what is drawn on the way, and of classes where `labels` is None.
          labels: classes of the images.
          settings: see there; static.
        """
        raise NotImplementedError

    def sample(
        self, variables: Variables, key: Array, count: int, settings: Sampling = AS_TRAINED
    ) -> UInt8[Array, "b h w c"]:
        """New images; image k is decided by the key and k alone."""
        keys = row_keys(key, count)
        return self.generate(variables, self.latents(keys), keys, None, settings)


def row_keys(key: Array, count: int, first: int = 0) -> Array:
    """Keys [count] of rows `first` and those that follow it."""
    return keys_of(key, spread(first + jnp.arange(count)))


def keys_of(key: Array, numbers: Int[Array, " n"]) -> Array:
    """Keys [n] of the rows with these numbers."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def normal(keys: Array, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Standard normal [b, *shape], one row of each key [b]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def as_pixels(images: Float[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Pixels of images in 0..1."""
    return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)


def between(
    a: Float[Array, "b ..."], b: Float[Array, "b ..."], part: Float[Array, ""] | float
) -> Float[Array, "b ..."]:
    """Latents on the way from `a` to `b`, along the great circle through them.

    Shoemake, Animating rotation with quaternion curves, 1985: a straight line would lead through
    latents that are shorter than those that training has seen.
    """
    flat_a, flat_b = (x.reshape(len(x), -1) for x in (a, b))
    norms = jnp.linalg.norm(flat_a, axis=1) * jnp.linalg.norm(flat_b, axis=1)
    cosine = jnp.sum(flat_a * flat_b, axis=1) / jnp.maximum(norms, 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))[:, None]
    near = angle < 1e-4
    sine = jnp.where(near, 1, jnp.sin(angle))
    of_a = jnp.where(near, 1 - part, jnp.sin((1 - part) * angle) / sine)
    of_b = jnp.where(near, part, jnp.sin(part * angle) / sine)
    return (of_a * flat_a + of_b * flat_b).reshape(a.shape)
