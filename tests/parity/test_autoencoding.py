"""Autoencoders to ours, to safetensors and back, with PyTorch: `pytest -m parity`."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.autoencoding import CASES, pixels, value

from jaxvision import models
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name, tmp_path):
    if missing := [package for package in ("pythae", "diffusers") if not find_spec(package)]:
        pytest.skip(f"needs {', '.join(missing)}; see tests/parity/README.md")
    from parity.autoencoding import build, halves
    from safetensors.torch import load_file

    case, entry = CASES[name], models.variant(CASES[name].model)
    reference, x = build(name).eval(), pixels(name, 0).astype(np.float32) / 255
    with torch.no_grad():
        for key, tensor in reference.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(value(key, tuple(tensor.shape)))))

    def seen(network):
        encode, decode = halves(name, network)
        with torch.no_grad():
            (code, *_) = encode(torch.from_numpy(x))
            if case.code == "codebook":
                code = network.quantizer(code.permute(0, 2, 3, 1)).quantized_vector
            elif case.code == "tokens":
                code = network.hard(code)
            return decode(code)

    expected = seen(reference)
    torch.save(reference.state_dict(), tmp_path / "reference.pt")
    model = models.create(case.model, **case.options)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x_ours))
    variables = torch_weights.load(tmp_path / "reference.pt", like, entry.convert)
    output = jax.jit(model.apply)(variables, x_ours)
    ours = np.moveaxis(jax.nn.sigmoid(output) if case.bernoulli else output, -1, 1)
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * float(expected.abs().max()))

    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    again = torch_weights.load(tmp_path / "ours.safetensors", like, entry.convert)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    fresh = build(name).eval()
    fresh.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    np.testing.assert_array_equal(seen(fresh), expected)


def test_diffusers_writes_what_is_read(tmp_path):
    """Its folder, by the names of its files."""
    if not find_spec("diffusers"):
        pytest.skip("needs diffusers; see tests/parity/README.md")
    from parity.autoencoding import build

    from jaxvision import pretrained

    name = "autoencoder_kl"
    reference = build(name).eval()
    reference.save_pretrained(tmp_path)
    case = CASES[name]
    model, variables = pretrained.create(name, str(tmp_path), image_size=(16, 24), **case.options)
    x = pixels(name, 0).astype(np.float32) / 255
    with torch.no_grad():
        expected = reference(torch.from_numpy(x)).sample.movedim(1, -1)
    found = jax.jit(model.apply)(variables, np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4 * float(expected.abs().max()))
