"""Times the ways to label each pixel of an image by the patch around it.

    python benchmarks/patch_classifier.py [--size 64] [--repeat 3]

Sliding windows run the network once a pixel; shift-and-stitch 16 times an image, with strides; the
dense form once, with dilated kernels. They have the same parameters and were found to give the same
before they are timed. Needs no accelerator.
"""

import argparse
import statistics
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the image")
    parser.add_argument("--repeat", type=int, default=3, help="rounds to take the median of")
    args = parser.parse_args()

    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxvision import models
    from jaxvision.models.segmentation.patch_classifier import (
        PATCH,
        STRIDE,
        around,
        shift_and_stitch,
        sliding_window,
    )

    dense, patches = (models.create("patch_classifier", 33, dense=d) for d in (True, False))
    image = jax.random.normal(jax.random.key(0), (1, args.size, args.size, 3))
    variables = jax.jit(dense.init)(jax.random.key(1), image)

    def of_patches(x: jax.Array) -> jax.Array:
        return patches.apply(variables, x)

    forms = {
        "sliding window": lambda x: sliding_window(
            lambda p: of_patches(p)[:, 0, 0], around(x, PATCH), PATCH
        ),
        "shift and stitch": lambda x: shift_and_stitch(of_patches, around(x, PATCH), PATCH, STRIDE),
        "dense": lambda x: dense.apply(variables, x),
    }
    runs = {name: jax.jit(form) for name, form in forms.items()}
    expected = runs["dense"](image)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        error = float(jnp.abs(run(image) - expected).max() / jnp.abs(expected).max())
        np.testing.assert_array_less(error, 1e-4)
    for _ in range(args.repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(image))
            times[name].append(time.perf_counter() - start)
    base = statistics.median(times["dense"])
    print(f"one image of {args.size}x{args.size}, {jax.default_backend()}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:18}{1e3 * median:10.1f} ms{median / base:8.1f} x the dense form")


if __name__ == "__main__":
    main()
