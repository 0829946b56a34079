"""Parameters of Flax modules, without tracing how they start where they are there already.

`flax.linen.Module.param` traces the initialiser of every parameter in every trace of the network,
to compare shapes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from flax.typing import Initializer
from jaxtyping import Array


def parameter(
    module: nn.Module, name: str, start: Initializer, shape: Sequence[int], dtype: Any = jnp.float32
) -> Array:
    """`module.param(name, start, shape, dtype)`: the same values, names and errors.

    Args:
      module: to which it belongs, in its `nn.compact` method.
      name: of the parameter.
      start: the initialiser, called with a key, the shape and the dtype.
      shape: of the parameter.
      dtype: that it starts with. One that is there keeps its own.

    Raises:
      ScopeParamShapeError: the parameter is there, in another shape.
    """
    if module.is_mutable_collection("params") or not module.has_variable("params", name):
        return module.param(name, start, shape, dtype)
    value = nn.meta.unbox(module.get_variable("params", name))
    if np.shape(value) != tuple(shape):
        path = "/" + "/".join(module.path)
        raise ScopeParamShapeError(name, path, np.shape(value), tuple(shape))
    return value
