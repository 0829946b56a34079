"""Exact evaluation over a split: padded batches, sums on the device, one division at the end."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxvision import metrics

_FOLD_EVERY = 64  # batches summed on the device before 64-bit sums on the host, ...
_FOLD_ABOVE = 2**30  # ... or fewer, of so many elements that counts might overflow 32 bits


def evaluate(
    step: Callable[[Any, Any], dict[str, Any]],
    variables: Any,
    batches: Iterator[dict[str, jax.Array]],
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Accumulators of `step(variables, batch)` over all batches, or None if cancelled midway."""
    total: Any = None
    pending: Any = None
    count, elements = 0, 0  # since the last fold
    for batch in batches:
        if cancelled():
            return None
        new = step(variables, batch)
        pending = new if pending is None else _add(pending, new)
        count, elements = count + 1, elements + max((v.size for v in batch.values()), default=0)
        if count == _FOLD_EVERY or elements >= _FOLD_ABOVE:
            total, pending, count, elements = _fold(total, pending), None, 0, 0
    return _fold(total, pending) if pending is not None else total


_add = jax.jit(metrics.add)


def _fold(total: Any, pending: Any) -> Any:
    def widen(leaf: Any) -> np.ndarray:
        host = np.asarray(leaf)
        return host.astype(np.int64 if host.dtype.kind == "i" else np.float64)

    wide = jax.tree.map(widen, jax.device_get(pending))
    return wide if total is None else metrics.add(total, wide)
