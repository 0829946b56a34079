"""Times a detector that looks at all windows of an image at once, and one after the other.

    python benchmarks/sliding_window.py [--size 487] [--repeat 3]

Both are OverFeat's fast network with a quarter of its channels, and without padding, so that they
give the same. Needs no accelerator.
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=487, help="rows and columns of the image")
    parser.add_argument("--repeat", type=int, default=3, help="rounds to take the median of")
    args = parser.parse_args()

    import jax
    from forms import compare

    from jaxvision import models
    from jaxvision.models.detection.overfeat import FAST, heads_by_windows

    layers = tuple((width // 4, *conv, 0, pool) for width, *conv, _, pool in FAST)
    # Without padding 6x6 places become 3x3.
    options = {"layers": layers, "kernel": 3, "hidden": (768, 1024), "box_hidden": (1024, 256)}
    network = models.create("overfeat_fast", 20, fine=True, **options)
    image = jax.random.normal(jax.random.key(0), (1, args.size, args.size, 3))
    variables = jax.jit(network.init)(jax.random.key(1), image)
    print(f"windows of {network.window}x{network.window} pixels, {network.apart} pixels apart")
    forms = {
        "window by window": lambda x: heads_by_windows(network, variables, x, batch=16),
        "dense": lambda x: network.apply(variables, x, method="heads"),
    }
    compare(forms, image, args.repeat)


if __name__ == "__main__":
    main()
