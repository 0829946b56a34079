"""Segments a photograph of 4000x3000 pixels by `jaxvision predict --tile` and measures the memory.

    python benchmarks/large_photograph.py [--config configs/segmentation/camvid.py:deeplabv3plus]

The photograph is drawn and the weights are random, which costs what real ones cost. Printed are the
seconds and the largest resident memory of the whole process, Python and compiler included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvision import models
from jaxvision.interop import torch_weights
from jaxvision.tasks import configuration

ROOT = Path(__file__).parents[1]


def photograph(width: int, height: int) -> Image.Image:
    """Smooth colours and noise, as large as a camera's."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 100, width // 100, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(0, 16, smooth.shape, np.uint8)
    return Image.fromarray(smooth - np.minimum(smooth, noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default=str(ROOT / "configs/segmentation/camvid.py:deeplabv3plus")
    )
    parser.add_argument("--tile", default="512")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--limit", type=float, default=2.0, help="GiB; more is a failure")
    options = parser.parse_args()
    config = configuration.load(options.config)
    entry = models.variant(config.model.name)
    network = models.create(
        config.model.name, len(config.data.classes), **config.model.options.to_dict()
    )
    image = jnp.zeros((1, 64, 64, config.data.channels))
    variables = jax.jit(lambda: network.init(jax.random.key(0), image))()
    with tempfile.TemporaryDirectory() as folder:
        weights, photo = Path(folder, "random.safetensors"), Path(folder, "photo.jpg")
        torch_weights.save(weights, variables, entry.export)
        photograph(*options.size).save(photo, quality=90)
        command = [
            *(sys.executable, "-m", "jaxvision", "predict", "--config", options.config),
            *("--weights", str(weights), "--tile", options.tile, str(photo)),
            *("--output", str(Path(folder, "out"))),
        ]
        start = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit("The prediction failed.")
        labels = Image.open(Path(folder, "out", "photo-classes.png"))
        assert labels.size == tuple(options.size), labels.size
    # macOS counts bytes, Linux kibibytes.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    print(
        f"{config.model.name}, {options.size[0]}x{options.size[1]} in tiles of {options.tile}: "
        f"{seconds:.0f} s, {peak:.2f} GiB"
    )
    if peak > options.limit:
        sys.exit(f"More than {options.limit} GiB.")


if __name__ == "__main__":
    main()
