"""DETR and YOLOS to ours, to safetensors and back, with transformers: `pytest -m parity`."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import image
from parity.set_prediction import CASES, CLASSES

from jaxvision import models
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("name", CASES)
def test_round_trip(name, tmp_path):
    if not find_spec("transformers"):
        pytest.skip("needs transformers; see tests/parity/README.md")
    from parity.set_prediction import build, prepared
    from safetensors.torch import load_file

    case, entry = CASES[name], models.variant(CASES[name].model)
    reference = prepared(name).eval()
    x = image(case.image)
    with torch.no_grad():
        expected = reference(torch.from_numpy(x))
    # As from_pretrained reads them: the names of files, not of modules.
    reference.save_pretrained(tmp_path)
    model = models.create(case.model, CLASSES, **case.options)
    x_ours = jnp.asarray(np.moveaxis(x, 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x_ours))
    variables = torch_weights.load(tmp_path / "model.safetensors", like, entry.convert)
    logits, boxes = jax.jit(lambda v: model.apply(v, x_ours, False, method="heads"))(variables)
    for ours, theirs in ((logits, expected.logits), (boxes, expected.pred_boxes)):
        close = 1e-4 * float(theirs.abs().max())
        np.testing.assert_allclose(ours[0], theirs.numpy(), 1e-4, close)

    torch_weights.save(tmp_path / "ours.safetensors", variables, entry.export)
    again = torch_weights.load(tmp_path / "ours.safetensors", like, entry.convert)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    if name == "detr":
        return  # goes back under the names of timm's ResNet, not of transformers' own
    fresh = build(name).eval()
    fresh.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    with torch.no_grad():
        returned = fresh(torch.from_numpy(x))
    np.testing.assert_array_equal(returned.logits, expected.logits)
    np.testing.assert_array_equal(returned.pred_boxes, expected.pred_boxes)
