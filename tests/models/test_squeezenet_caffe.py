"""SqueezeNet with its authors' trained weights, a file of Deep Compression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import models
from jaxvision.interop import torch_weights
from jaxvision.interop.weight_files import read_state_dict


def photograph(path):
    """What Caffe was given, but red first: 227x227 pixels less the mean of ImageNet."""
    picture = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    centre = np.asarray(picture, np.float32)[14:241, 14:241]
    return centre - np.array([123, 117, 104], np.float32)


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
    state = read_state_dict(weights / "compressed_SqueezeNet.net")
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
