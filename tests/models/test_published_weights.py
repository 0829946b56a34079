"""Trained weights published for PyTorch, imported by name: their logits and their accuracy."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import models, pretrained
from jaxvision.interop import torch_weights

BATCH = 500
# Thousands of images are worth a better program than the flags of the tests give.
OPTIMISED = {"xla_backend_optimization_level": 2}


def predict(name, path, images):
    """Logits of normalised images [n, h, w, c], n a multiple of the batch."""
    model = models.create(name, 10)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), images[:1]))
    variables = torch_weights.load(path, like, models.variant(name).convert)
    apply = jax.jit(model.apply, compiler_options=OPTIMISED)
    return np.concatenate(
        [apply(variables, batch) for batch in np.split(images, len(images) // BATCH)]
    )


@pytest.fixture(scope="module")
def cifar(shared_data):
    folder = shared_data / "cifar10"
    pixels = np.asarray(Image.open(folder / "cifar10_batch_50.png").convert("RGB"))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = (pixels.reshape(1000, 32, 32, 3).astype(np.float32) / 255 - mean) / std
    text = (folder / "cifar10_labels.js").read_text()
    labels = json.loads(text[text.index("[") : text.rindex("]") + 1])
    return images, np.array(labels[50_000:51_000])


@pytest.mark.parametrize(
    ("name", "file", "correct"),
    [
        ("resnet20", "resnet20-12fca82f.th", 915),
        pytest.param("resnet32", "resnet32-d509ac18.th", 928, marks=pytest.mark.slow),
        pytest.param("resnet56", "resnet56-4bfd9763.th", 926, marks=pytest.mark.slow),
    ],
)
def test_resnet(shared_data, cifar, name, file, correct):
    folder, (images, labels) = shared_data / "weights" / "resnet_cifar10", cifar
    logits = predict(f"{name}_cifar", folder / file, images)
    expected = np.load(folder / f"reference_{name}_test1000.npz")["logits"]
    np.testing.assert_allclose(logits, expected, 0, 1e-3)
    assert (logits.argmax(1) == labels).sum() == correct


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet20_cifar", "resnet_cifar10/resnet20-12fca82f.th"),
        ("resnet56_cifar", "resnet_cifar10/resnet56-4bfd9763.th"),
        ("vit_mnist", "vit_mnist/vit_mnist_gpu.pt"),
    ],
)
def test_weights_go_back_as_they_came(shared_data, tmp_path, name, file):
    path = shared_data / "weights" / file
    _, variables = pretrained.create(name, str(path))
    entry = models.variant(name)
    torch_weights.save(tmp_path / "back.safetensors", variables, entry.export)
    came = entry.convert(torch_weights.read_state_dict(path))
    back = torch_weights.read_state_dict(tmp_path / "back.safetensors")
    assert {n for n in back if "num_batches" not in n} == {
        n for n in came if "num_batches" not in n
    }
    for key, value in came.items():
        if "num_batches" not in key:
            np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize(
    ("count", "correct", "loss"),
    [(1000, 965, None), pytest.param(10_000, 9721, 0.087130, marks=pytest.mark.slow)],
)
def test_vit(shared_data, count, correct, loss):
    def idx(name, header):
        (path,) = (shared_data / "mnist_test").glob(f"*{name}*gz")
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)

    images = idx("images", 16).reshape(-1, 28, 28, 1)[:count].astype(np.float32)
    images = (images / 255 - np.float32(0.1307)) / np.float32(0.3081)
    folder = shared_data / "weights" / "vit_mnist"
    logits = predict("vit_mnist", folder / "vit_mnist_gpu.pt", images)
    expected = np.load(folder / "reference_test1000.npz")["logits"]
    np.testing.assert_allclose(logits[:1000], expected, 0, 1e-3)
    labels = idx("labels", 8)[:count]
    assert (logits.argmax(1) == labels).sum() == correct
    if loss is not None:
        nll = -jax.nn.log_softmax(jnp.asarray(logits))[np.arange(len(labels)), labels].mean()
        np.testing.assert_allclose(nll, loss, atol=1e-6)
