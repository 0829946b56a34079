"""What a network says of photographs and volumes of any size, tile by tile, in little memory.

Tiles overlap. Where pixels are predicted they are blended by weights that fall towards their
borders, so that no seams show, and what is kept at a time are the probabilities of one band.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxvision.ops.tiling import Tiling


def predict_tiled(
    predict: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    tile: Sequence[int],
    overlap: float = 0.25,
    batch_size: int = 1,
) -> dict[str, np.ndarray]:
    """`segmentation` i32 [*size] and `probability` f16 [*size] of the class found.

    Args:
      predict: tiles uint8 [batch_size, *tile, c] to probabilities [batch_size, *output, k]. The
        output may be smaller than the tile; what it misses is mirrored at the image's border.
      image: uint8 [*size, c].
      tile: its size along each axis of the image but the last.
      overlap: the part of an output that the next covers again.
      batch_size: tiles a call.
    """
    size = image.shape[:-1]
    blank = np.zeros((batch_size, *tile, image.shape[-1]), image.dtype)
    *output, classes = np.shape(predict(blank))[1:]
    tiling = Tiling.of(size, tile, output, overlap)
    weight = _falling(output)
    height, width = output[0], [max(n, o) for n, o in zip(size, output)][1:]
    sums, weights = np.zeros((height, *width, classes), np.float32), np.zeros((height, *width))
    labels, probability = np.zeros(size, np.int32), np.zeros(size, np.float16)
    rest = [corner for corner in tiling.corners() if corner[0] == 0]
    across = [corner[1:] for corner in rest]
    inside = tuple(slice(n) for n in size[1:])
    for row, top in enumerate(tiling.starts[0]):
        for first in range(0, len(across), batch_size):
            group = across[first : first + batch_size]
            tiles = blank.copy()
            for place, corner in enumerate(group):
                tiles[place] = _window(image, (top, *corner), tiling)
            found = np.asarray(predict(tiles), np.float32)
            for place, corner in enumerate(group):
                window = (slice(None), *(slice(c, c + o) for c, o in zip(corner, output[1:])))
                sums[window] += found[place] * weight[..., None]
                weights[window] += weight
        last = row + 1 == len(tiling.starts[0])
        done = height if last else int(tiling.starts[0][row + 1] - top)
        rows = slice(int(top), min(int(top) + done, size[0]))
        here = (slice(rows.stop - rows.start), *inside)
        labels[rows] = sums[here].argmax(-1)
        probability[rows] = sums[here].max(-1) / weights[here]
        # What the next band covers again moves to the front.
        for buffer in (sums, weights):
            buffer[: height - done] = buffer[done:].copy()
            buffer[height - done :] = 0
    return {"segmentation": labels, "probability": probability}


def predict_joined(
    predict: Callable[[np.ndarray], dict[str, np.ndarray]],
    join: Callable[..., dict[str, np.ndarray]],
    image: np.ndarray,
    tile: Sequence[int],
    overlap: float = 0.25,
) -> dict[str, np.ndarray]:
    """What a task makes of the outputs of all tiles, each of which is predicted by itself.

    Args:
      predict: a tile uint8 [h, w, c] to its outputs.
      join: (outputs, corners [t, 2], tile, size) to those of the image, see `Task.join_tiles`.
      image: uint8 [h, w, c].
      tile: its height and width; of an image that is smaller, that one's.
      overlap: the part of a tile that the next covers again.
    """
    size = image.shape[:-1]
    window = tuple(min(sides) for sides in zip(size, tile, strict=True))
    corners = Tiling.of(size, window, window, overlap).corners()
    parts = (
        image[tuple(slice(start, start + side) for start, side in zip(corner, window))]
        for corner in corners
    )
    return join([predict(part) for part in parts], corners, window, size)


def _falling(output: Sequence[int]) -> np.ndarray:
    """Weights of a tile's places: 1 in the middle, falling in lines to almost 0 at the border."""
    weight = np.ones(output, np.float32)
    for axis, n in enumerate(output):
        distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1
        ramp = (distance / distance.max()).astype(np.float32)
        weight *= ramp.reshape([-1 if a == axis else 1 for a in range(len(output))])
    return np.maximum(weight, 1e-4)


def _window(image: np.ndarray, corner: Sequence[int], tiling: Tiling) -> np.ndarray:
    """A tile of the mirrored image, which is never made."""
    places = [
        _mirrored(np.arange(start - before, start - before + length), n)
        for start, before, length, n in zip(corner, tiling.margin, tiling.window, image.shape)
    ]
    return image[np.ix_(*places)]


def _mirrored(index: np.ndarray, n: int) -> np.ndarray:
    """Indices into an axis of length n continued by its mirror image, the border not repeated."""
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * (n - 1))
    return np.minimum(index, 2 * (n - 1) - index)
