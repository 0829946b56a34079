"""SqueezeNet's weights as its authors publish them: Han et al., Deep Compression, 2016.

https://arxiv.org/abs/1510.00149; github.com/songhan/SqueezeNet-Deep-Compression. The file holds of
each layer a codebook of 256 weights, the biases, an 8-bit code of each weight that was not pruned,
and the 4-bit gaps between these. The network takes blue first (0 to 255, less 104, 117 and 123);
what is read here takes red first.
"""

import math
from pathlib import Path

import numpy as np

from jaxvision.errors import UserError
from jaxvision.state_dict import StateDict

SUFFIX = ".net"


def _layers() -> dict[str, tuple[int, ...]]:
    """Shapes of the kernels of SqueezeNet 1.0, by torchvision's names."""
    found, channels = {"features.0": (96, 3, 7, 7)}, 96
    fires = zip((3, 4, 5, 7, 8, 9, 10, 12), (16, 16, 32, 32, 48, 48, 64, 64), strict=True)
    for index, width in fires:
        found[f"features.{index}.squeeze"] = (width, channels, 1, 1)
        for side in (1, 3):
            found[f"features.{index}.expand{side}x{side}"] = (4 * width, width, side, side)
        channels = 8 * width
    return {**found, "classifier.1": (1000, channels, 1, 1)}


def read(path: Path) -> StateDict:
    """The state_dict of torchvision's `squeezenet1_0`.

    Raises:
      UserError: the file is damaged, or of another network.
    """
    wrong = UserError(f"Cannot read {path}: it is no Deep Compression file of SqueezeNet.")
    content, layers = path.read_bytes(), _layers()
    place, state = 0, {}

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal place
        size = count * np.dtype(dtype).itemsize
        if place + size > len(content):
            raise wrong
        found = np.frombuffer(content, dtype, count, place)
        place += size
        return found

    counts = take("<u4", len(layers)).tolist()
    for (layer, shape), count in zip(layers.items(), counts):
        total = math.prod(shape)
        if count > 2 * total:  # gaps of more than 15 weights have codes in between
            raise wrong
        codebook, bias = take("<f4", 256), take("<f4", shape[0])
        codes, packed = take("u1", count), take("u1", -(-count // 2))
        gaps = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[:count]
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if count and places[-1] >= total:
            raise wrong
        weight = np.full(total, codebook[0], np.float32)
        weight[places] = codebook[codes]
        state[f"{layer}.weight"] = weight.reshape(shape)
        state[f"{layer}.bias"] = bias
    if place != len(content):
        raise wrong
    first = state["features.0.weight"]
    return {**state, "features.0.weight": np.ascontiguousarray(first[:, ::-1])}
