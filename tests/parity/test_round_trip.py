"""Reference → ours → safetensors → reference, with PyTorch: `pytest -m parity tests/parity`."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.cases import CASES, family, variant
from parity.deterministic import image

from jaxvision import models
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name, tmp_path):
    packages = ("torchvision", "timm", "unet", *("mmdet", "holocron") * name.startswith("darknet"))
    if missing := [package for package in packages if not find_spec(package)]:
        pytest.skip(f"needs {', '.join(missing)}; see tests/parity/README.md")
    from parity.generate import logits_of, prepared
    from safetensors.torch import load_file

    case, entry = CASES[name], models.variant(variant(name))
    reference = prepared(name, case).eval()
    x = image(case.image)
    with torch.no_grad():
        expected = logits_of(reference(torch.from_numpy(x))).movedim(1, -1).numpy()

    torch.save({"state_dict": reference.state_dict(), "epoch": 3}, tmp_path / "reference.pt")
    model = models.create(variant(name), case.classes, **case.options)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x_ours, train=False))
    variables = torch_weights.load(tmp_path / "reference.pt", like, entry.convert)
    logits = np.asarray(jax.jit(model.apply)(variables, x_ours))
    np.testing.assert_allclose(logits, expected, 1e-4, 1e-4 * np.abs(expected).max())

    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    state = load_file(tmp_path / "ours.safetensors")
    again = torch_weights.load(tmp_path / "ours.safetensors", like, entry.convert)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    if name == "vit_mnist":
        return  # goes back under timm's names, not under those that it came by
    fresh = family(name).build(name, case).eval()
    fresh.load_state_dict(state, strict=True)
    with torch.no_grad():
        returned = logits_of(fresh(torch.from_numpy(x))).movedim(1, -1).numpy()
    np.testing.assert_array_equal(returned, expected)
