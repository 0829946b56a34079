"""Times the ways to label each pixel of an image by the patch around it.

    python benchmarks/patch_classifier.py [--size 64] [--repeat 3]

Sliding windows run the network once a pixel; shift-and-stitch 16 times an image, with strides; the
dense form once, with dilated kernels. They have the same parameters and were found to give the same
before they are timed. Needs no accelerator.
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the image")
    parser.add_argument("--repeat", type=int, default=3, help="rounds to take the median of")
    args = parser.parse_args()

    import jax
    from forms import compare

    from jaxvision import models
    from jaxvision.models.segmentation.patch_classifier import (
        PATCH,
        STRIDE,
        around,
        shift_and_stitch,
    )
    from jaxvision.ops.tiling import each_window

    dense, patches = (models.create("patch_classifier", 33, dense=d) for d in (True, False))
    image = jax.random.normal(jax.random.key(0), (1, args.size, args.size, 3))
    variables = jax.jit(dense.init)(jax.random.key(1), image)

    def of_patches(x: jax.Array) -> jax.Array:
        return patches.apply(variables, x)

    forms = {
        "sliding window": lambda x: each_window(
            lambda p: of_patches(p)[:, 0, 0], around(x, PATCH), PATCH
        ),
        "shift and stitch": lambda x: shift_and_stitch(of_patches, around(x, PATCH), PATCH, STRIDE),
        "dense": lambda x: dense.apply(variables, x),
    }
    compare(forms, image, args.repeat)


if __name__ == "__main__":
    main()
