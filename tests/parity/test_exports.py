"""What export-torch writes, in the networks that the printed constructors make."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from parity.exports import EXPORTS, network

from jaxvision import models
from jaxvision.commands.export_torch import target
from jaxvision.interop import torch_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs PyTorch; see tests/parity/README.md")


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.call)
def test_an_export_is_loaded_strictly(export):
    packages = ("torchvision", "timm", "pytorchcv", "segmentation_models_pytorch")
    if missing := [p for p in packages if not find_spec(p)]:
        pytest.skip(f"needs {', '.join(missing)}; see tests/parity/README.md")
    torch.manual_seed(0)
    theirs, fresh = network(export.call).state_dict(), network(export.call)
    entry = models.variant(export.name)
    *size, channels = entry.input_shape
    x = jnp.zeros((1, *(export.side or side for side in size), export.channels or channels))
    model = models.create(export.name, export.classes, **export.options)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    state = {name: value.numpy() for name, value in theirs.items()}
    variables = torch_weights.to_variables(entry.convert(state), like)
    _, rename = target(export.name, entry, export.package)
    ours = rename(torch_weights.to_state_dict(variables))
    fresh.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in ours.items()}, strict=True)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, theirs[name]), name
