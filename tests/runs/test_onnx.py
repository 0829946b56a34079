"""Networks as ONNX: run by onnxruntime, and traced in plain forms where it is missing."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from programs import SMALL, photographs, trained

from jaxvision import cli, models
from jaxvision.errors import UserError
from jaxvision.ops import forms
from jaxvision.ops.pooling import max_pool2d
from jaxvision.runs import exporting, onnx
from jaxvision.tasks import configuration
from jaxvision.train import run

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.md"
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="wants the extra `onnx`"
)
NETWORKS = {
    **SMALL,
    "resnet18": ((64, 64, 3), {"depths": (1, 1, 1, 1)}),
    "mobilenet_v2": ((64, 64, 3), {}),
    "deeplabv3plus_resnet18": ((64, 64, 3), {}),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_is_traced_is_plain_and_says_the_same(name, tmp_path):
    shape, options = SMALL[name]
    network = trained(name, shape, options, tmp_path)
    predict, _ = exporting.predictor(network)
    images = photographs(shape)
    expected = network.predict(list(images))
    with forms.plain():
        text = str(jax.make_jaxpr(predict)(images))
        found = jax.jit(predict)(images)
    for absent in ("platform_index", "layout_constraint", "reduce_window"):
        assert absent not in text
    for key, value in found.items():
        wanted = np.stack([one.outputs[key] for one in expected])
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def test_borders_of_plain_forms():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 3)), jnp.float32)
    with forms.plain():
        plain = max_pool2d(x, 3, stride=2, padding=1)
    np.testing.assert_array_equal(plain, max_pool2d(x, 3, stride=2, padding=1))


def test_mistakes_are_met_at_the_door(tmp_path, monkeypatch):
    config = configuration.load("generation/digits_dcgan:smoke", {"log.tensorboard": False})
    run(config, tmp_path / "dcgan")
    with pytest.raises(UserError, match=r"Samples want random numbers, which ONNX lacks"):
        cli.run(["export", "x.onnx", "--workdir", str(tmp_path / "dcgan")])
    with pytest.raises(UserError, match=r"for no platforms of JAX; leave --platforms out"):
        cli.run(["export", "x.onnx", "--workdir", str(tmp_path / "dcgan"), "--platforms", "cpu"])
    network = trained("resnet8_cifar", *SMALL["resnet8_cifar"], tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ONNX wants jax2onnx and onnx and onnxruntime: pip inst"):
        onnx.export(network)


@needs_onnx
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_says_what_the_network_does(name, tmp_path):
    import onnxruntime

    shape, options = NETWORKS[name]
    network, images = trained(name, shape, options, tmp_path), photographs(shape, 5)
    path = tmp_path / "network.onnx"
    size = exporting.write(onnx.export(network), path, "CC0-1.0")
    assert size == path.stat().st_size
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    card = json.loads((tmp_path / "network.json").read_text())
    assert card["input"]["shape"] == ["b", *shape]
    assert card["licence"] == "CC0-1.0"
    assert list(card["opset"]) == ["ai.onnx"]
    expected = network.predict(list(images))
    for count in (1, 5):
        found = session.run(list(card["outputs"]), {"images": images[:count]})
        for key, value in zip(card["outputs"], found):
            wanted = np.stack([one.outputs[key] for one in expected[:count]])
            np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)


@needs_onnx
def test_what_the_documentation_says_runs(tmp_path, monkeypatch):
    network = trained("resnet8_cifar", (8, 8, 1), {}, tmp_path)
    exporting.write(onnx.export(network), tmp_path / "digits.onnx")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", DEPLOYMENT.read_text(), re.S | re.M)
    (block,) = (one for one in blocks if "import onnxruntime" in one)
    namespace = {}
    exec(block, namespace)
    assert namespace["outputs"]["probabilities"].shape == (3, 3)


@needs_onnx
def test_a_graph_that_says_something_else_is_refused(tmp_path, monkeypatch):
    network = trained("resnet8_cifar", *SMALL["resnet8_cifar"], tmp_path)
    honest = onnx.predictor

    def other(run, size):
        predict, image = honest(run, size)
        calls = []

        def changing(images):  # as a wrong conversion would be: not what is traced later
            calls.append(1)
            found = predict(images)
            return {k: v * (1 + (len(calls) > 2)) for k, v in found.items()}

        return changing, image

    monkeypatch.setattr(onnx, "predictor", other)
    with pytest.raises(UserError, match=r"onnxruntime's 'label' differs|'probabilities' differs"):
        onnx.export(network)


@needs_onnx
@pytest.mark.usefixtures("own_networks")
def test_what_onnx_lacks_is_named(tmp_path):
    @models.register("spectrum", input_shape=(8, 8, 1), paper="none", first="Dense_0")
    class Spectrum(nn.Module):
        num_classes: int = 3

        @nn.compact
        def __call__(self, image, train=False):
            amplitudes = jnp.abs(jnp.fft.rfft2(image, axes=(1, 2)))
            return nn.Dense(self.num_classes)(amplitudes.reshape(image.shape[0], -1))

    network = trained("spectrum", (8, 8, 1), {}, tmp_path)
    with pytest.raises(UserError, match=r"spectrum cannot be written as ONNX: .*FFT"):
        onnx.export(network)
