"""Files of Deep Compression, written by hand; the real one is read in test_squeezenet_caffe.py."""

import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.interop.weight_files import read_state_dict

LAYERS = 26


def file(first=b"", count=0):
    """All weights of layer k are k, but those of the first layer that `first` codes."""
    biases = [96]
    for width in (16, 16, 32, 32, 48, 48, 64, 64):
        biases += [width, 4 * width, 4 * width]
    parts = [np.array([count] + [0] * (LAYERS - 1), "<u4").tobytes()]
    for layer, size in enumerate([*biases, 1000]):
        codebook = np.full(256, layer, "<f4")
        codebook[7] = 0.5
        parts += [codebook.tobytes(), np.full(size, -layer, "<f4").tobytes()]
        parts.append(first if layer == 0 else b"")
    return b"".join(parts)


def read(tmp_path, content):
    (tmp_path / "squeeze.net").write_bytes(content)
    return read_state_dict(tmp_path / "squeeze.net")


def test_weights_stand_where_the_gaps_say(tmp_path):
    # Three codes 7, 7, 7 with gaps 2, 0, 15: places 2, 3 and 19.
    state = read(tmp_path, file(bytes([7, 7, 7, 0x02, 0x0F]), 3))
    kernel = state["features.0.weight"]
    assert kernel.shape == (96, 3, 7, 7)
    blue = kernel[:, ::-1].reshape(-1)  # as it is stored
    np.testing.assert_array_equal(np.flatnonzero(blue), [2, 3, 19])
    assert blue[2] == 0.5
    assert state["classifier.1.weight"].shape == (1000, 512, 1, 1)
    assert (state["classifier.1.weight"] == 25).all()
    assert (state["features.3.squeeze.bias"] == -1).all()


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        file()[:-1],
        file() + b"x",
        file(bytes([7, 7, 7, 0x02, 0x0F]), 2**31),
        file(bytes([7] * 9600) + b"\xff" * 4800, 9600),  # beyond the 14112 weights of the layer
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="no Deep Compression file"):
        read(tmp_path, content)
