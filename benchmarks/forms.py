"""Times several ways to compute the same of an image, after they were found to give the same."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def compare(forms: Mapping[str, Callable[[jax.Array], Any]], image: jax.Array, repeat: int) -> None:
    """Prints the median time of each form, and what part of it the last one takes.

    Args:
      forms: by name; the last one is what the others are compared with.
      image: what they are called with.
      repeat: rounds to take the median of.
    """
    runs = {name: jax.jit(form) for name, form in forms.items()}
    *_, base = runs
    expected = runs[base](image)
    times: dict[str, list[float]] = {name: [] for name in runs}

    def error(ours: jax.Array, expected: jax.Array) -> float:
        return float(jnp.abs(ours - expected).max() / jnp.abs(expected).max())

    for run in runs.values():
        errors = jax.tree.leaves(jax.tree.map(error, run(image), expected))
        np.testing.assert_array_less(errors, 1e-4)
    for _ in range(repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(image))
            times[name].append(time.perf_counter() - start)
    shortest = statistics.median(times[base])
    print(f"one image of {image.shape[1]}x{image.shape[2]}, {jax.default_backend()}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:18}{1e3 * median:10.1f} ms{median / shortest:8.1f} x the {base} form")
