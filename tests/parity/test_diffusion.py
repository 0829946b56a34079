"""Diffusion networks → ours → safetensors → diffusers, with PyTorch: `pytest -m parity`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import image, labels, weights
from parity.diffusion import CASES, TIMESTEPS, build

from jaxvision import models
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name, tmp_path):
    from safetensors.torch import load_file

    case, reference = CASES[name], build(name)
    inner = getattr(reference, "network", reference)
    with torch.no_grad():
        for key, value in inner.state_dict().items():
            value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    x, label = image(case.image), None
    inputs = [torch.from_numpy(x), torch.tensor(TIMESTEPS)]
    if classes := case.options.get("classes", 0):
        label = labels(case.image[:1], classes + 1)
        inputs.append(torch.from_numpy(label))
    with torch.no_grad():
        expected = reference.eval()(*inputs).numpy()

    state = {key: value.numpy() for key, value in inner.state_dict().items()}
    network = models.create(case.model, **case.options)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), x_ours))
    variables = torch_weights.to_variables(state, like)
    ours = jax.jit(network.apply)(
        variables, x_ours, jnp.array(TIMESTEPS), None if label is None else jnp.asarray(label)
    )
    ours = np.moveaxis(np.asarray(ours), -1, 1)
    np.testing.assert_allclose(ours, expected, 1e-3, 1e-4 * np.abs(expected).max())

    torch_weights.save(tmp_path / "ours.safetensors", variables)
    fresh = build(name)
    kept = load_file(tmp_path / "ours.safetensors")
    getattr(fresh, "network", fresh).load_state_dict(kept, strict=True)
    with torch.no_grad():
        np.testing.assert_array_equal(fresh.eval()(*inputs).numpy(), expected)
