"""Captioning networks to ours, to safetensors and back, with PyTorch: `pytest -m parity`."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import decoding
from parity.captioning import CASES, CLASSES, IMAGE, tokens
from parity.deterministic import image, weights

from jaxvision import models
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, 1e-4, 1e-4 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name, tmp_path):
    if missing := [package for package in ("torchvision", "timm") if not find_spec(package)]:
        pytest.skip(f"needs {', '.join(missing)}; see tests/parity/README.md")
    from parity.captioning import build
    from safetensors.torch import load_file

    case, entry = CASES[name], models.variant(CASES[name].model)
    reference, x, said = build(name), image(IMAGE), tokens()[:, :-1]
    with torch.no_grad():
        for key, value in reference.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
        expected = reference.eval()(torch.from_numpy(x), torch.from_numpy(said))["logits"]
    torch.save(reference.state_dict(), tmp_path / "reference.pt")
    model = models.create(case.model, CLASSES, **case.options)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x_ours))
    variables = torch_weights.load(tmp_path / "reference.pt", like, entry.convert)
    close(jax.jit(model.apply)(variables, x_ours, said.astype(np.int32)), expected.numpy())

    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    again = torch_weights.load(tmp_path / "ours.safetensors", like, entry.convert)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    fresh = build(name).eval()
    fresh.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    with torch.no_grad():
        returned = fresh(torch.from_numpy(x), torch.from_numpy(said))["logits"]
    np.testing.assert_array_equal(returned, expected)


def test_vision_encoder_decoder(tmp_path):
    if not find_spec("transformers"):
        pytest.skip("needs transformers; see tests/parity/README.md")
    from safetensors.torch import load_file

    case, entry = decoding.CASES["gpt2"], models.variant("vit_gpt2")
    reference, x, said = decoding.prepared(case), decoding.images(case), decoding.said(case)
    with torch.no_grad():
        words = {"decoder_input_ids": torch.from_numpy(said)}
        expected = reference(torch.from_numpy(x), **words).logits
    # As from_pretrained reads them: the names of files, not of modules.
    reference.save_pretrained(tmp_path)
    model = models.create("vit_gpt2", decoding.VOCABULARY, **decoding.OPTIONS)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x_ours))
    variables = torch_weights.load(tmp_path / "model.safetensors", like, entry.convert)
    close(jax.jit(model.apply)(variables, x_ours, said.astype(np.int32)), expected.numpy())

    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    again = torch_weights.load(tmp_path / "ours.safetensors", like, entry.convert)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    state = load_file(tmp_path / "ours.safetensors")
    fresh = decoding.build()
    fresh.load_state_dict(state, strict=True)
    (tmp_path / "ours.safetensors").rename(tmp_path / "model.safetensors")
    for network in (fresh, type(fresh).from_pretrained(tmp_path).eval()):
        with torch.no_grad():
            returned = network(torch.from_numpy(x), **words).logits
        np.testing.assert_array_equal(returned, expected)
