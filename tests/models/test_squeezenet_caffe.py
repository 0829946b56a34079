"""SqueezeNet with its authors' trained weights: Han et al., Deep Compression, 2016.

https://arxiv.org/abs/1510.00149. Their file holds, per layer, a codebook of 256 weights, the
biases, an 8-bit code for each weight that was not pruned and the 4-bit gaps between these.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import models
from jaxvision.interop import torch_weights

FIRES = (3, 4, 5, 7, 8, 9, 10, 12)  # their indices among torchvision's `features`
LAYERS = [
    "features.0",
    *(f"features.{i}.{part}" for i in FIRES for part in ("squeeze", "expand1x1", "expand3x3")),
    "classifier.1",
]


def decompressed(content, shapes):
    """The state_dict of a Deep Compression file."""
    counts = np.frombuffer(content, "<u4", len(LAYERS)).tolist()
    start, state = 4 * len(LAYERS), {}

    def take(dtype, count):
        nonlocal start
        found = np.frombuffer(content, dtype, count, start)
        start += found.nbytes
        return found

    for layer, count in zip(LAYERS, counts, strict=True):
        shape = shapes[f"{layer}.weight"]
        codebook, bias = take("<f4", 256), take("<f4", shape[0])
        codes, packed = take("u1", count), take("u1", -(-count // 2))
        gaps = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[:count]
        weight = np.full(np.prod(shape), codebook[0])
        weight[np.cumsum(gaps.astype(np.int64) + 1) - 1] = codebook[codes]
        state[f"{layer}.weight"], state[f"{layer}.bias"] = weight.reshape(shape), bias
    assert start == len(content)
    return state


def photograph(path):
    """What Caffe was given: 227x227 pixels, blue first, less the mean of ImageNet."""
    picture = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    centre = np.asarray(picture, np.float32)[14:241, 14:241]
    return centre[..., ::-1] - np.array([104, 117, 123], np.float32)


@pytest.fixture(scope="module")
def classified(shared_data):
    """(our logits, the stored ones, true classes) of the hundred photographs."""
    weights, photographs = (
        shared_data / "weights/squeezenet_imagenet",
        shared_data / "imagenet_photos",
    )
    for folder in (weights, photographs):
        if not folder.is_dir():
            pytest.skip(f"needs {folder}")
    model = models.create("squeezenet1_0")
    example = jnp.zeros((1, 227, 227, 3))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
    ours = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
    shapes = {name: value.shape for name, value in torch_weights.to_state_dict(ours).items()}
    state = decompressed((weights / "compressed_SqueezeNet.net").read_bytes(), shapes)
    variables = torch_weights.to_variables(state, like)
    rows = (photographs / "class_index.tsv").read_text().splitlines()[1:]
    files = {int(row[0]): row[3] for row in (line.split("\t") for line in rows) if row[3] != "-"}
    stored = np.load(weights / "reference_photos100.npz")
    images = np.stack([photograph(photographs / files[i]) for i in stored["class_index"]])
    apply = jax.jit(model.apply)
    logits = np.concatenate([apply(variables, batch) for batch in np.split(images, 5)])
    return logits, stored["logits"], stored["class_index"]


def test_logits_are_those_of_caffe(classified):
    logits, stored, _ = classified
    np.testing.assert_allclose(logits, stored, 1e-4, 1e-4 * np.abs(stored).max())


def test_photographs_are_recognised(classified):
    logits, _, truth = classified
    best = np.argsort(-logits, axis=1)[:, :5]
    assert (best[:, 0] == truth).sum() == 64
    assert (best == truth[:, None]).any(1).sum() == 83
