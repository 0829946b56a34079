"""Weights and inputs that a name and a shape decide: PyTorch and JAX are given the same ones.

NumPy alone, and Pillow to read photographs, because both environments import it. NumPy keeps the
streams of `default_rng`'s raw bits across versions (NEP 19); what is built on them here is plain
arithmetic.
"""

import hashlib
import math
from pathlib import Path

import numpy as np


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 in [-1, 1), decided by the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    bits = np.random.PCG64(seed).random_raw(math.prod(shape)) >> np.uint64(40)
    return (bits.astype(np.float32) / 2**23 - 1).reshape(shape)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor called `name` in a PyTorch state_dict, float32.

    Weights of linear layers and convolutions keep the size of activations that a ReLU has halved;
    norms are near the identity and no parameter is zero, so that a swapped or forgotten one shows.
    """
    noise = _uniform(name, tuple(shape))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return 1 + noise / 2
    if name.endswith("anchors"):  # sides
        return 0.3 + noise / 5
    if name.endswith("running_mean"):
        return noise / 5
    if len(shape) >= 2 and not name.endswith(("pos_embed", "pos_embedding", "cls_token")):
        fan_in = math.prod(shape[1:])
        return noise * np.float32(math.sqrt(6 / fan_in))
    if name.endswith("weight"):
        return 1 + noise / 4
    return noise / 10


def image(shape: tuple[int, ...], draw: int = 0) -> np.ndarray:
    """The n-th draw of a batch of images, [b, c, h, w] as in PyTorch, values in [-1.7, 1.7)."""
    return _uniform(f"image {draw} of {_text(shape)}", shape) * np.float32(1.7)


PHOTOGRAPHS = ("cat", "coffee")
_MEAN, _DEVIATION = (np.array(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def photographs(shape: tuple[int, ...]) -> np.ndarray:
    """The two photographs beside this file, in turn, as `image` has its images.

    They are stretched, each pixel to the mean of what it covers, and normalised as ImageNet's are.
    """
    from PIL import Image

    folder = Path(__file__).parent / "photographs"
    stretched = []
    for name in PHOTOGRAPHS:
        pixels = np.asarray(Image.open(folder / f"{name}.png"), np.float64) / 255
        pixels = (pixels - _MEAN) / _DEVIATION
        rows, columns = map(_overlap, shape[2:], pixels.shape[:2])
        stretched.append(rows @ np.moveaxis(pixels, -1, 0) @ columns.T)
    return np.stack([stretched[k % 2] for k in range(shape[0])]).astype(np.float32)


def _overlap(want: int, have: int) -> np.ndarray:
    """Which part of each of `want` equal lengths each of `have` equal ones covers, [want, have]."""
    edges, ends = np.arange(want + 1) * (have / want), np.arange(have + 1)
    common = np.minimum(edges[1:, None], ends[1:]) - np.maximum(edges[:-1, None], ends[:-1])
    return np.maximum(common, 0) * (want / have)


def labels(shape: tuple[int, ...], classes: int) -> np.ndarray:
    """Class indices, int64."""
    return ((_uniform(f"labels of {_text(shape)}", shape) + 1) / 2 * classes).astype(np.int64)


def sample(value: np.ndarray, count: int) -> np.ndarray:
    """At most `count` elements, evenly spaced over the flattened array."""
    flat = np.asarray(value).reshape(-1)
    return flat[:: max(1, -(-flat.size // count))]
