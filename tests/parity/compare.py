"""Our side of a case: the network with the reference's weights, beside the golden file."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from parity.cases import CASES, FEATURES, GOLDEN, LOGITS, variant
from parity.deterministic import image, sample, weights

from jaxvision import models
from jaxvision.interop import torch_weights


@dataclass(frozen=True)
class Setup:
    """A case with our network's variables filled by the reference's names."""

    golden: dict[str, np.ndarray]
    image: jax.Array
    variables: dict


@functools.lru_cache(1)  # some networks have half a gigabyte of weights
def setup(name):
    case, golden = CASES[name], dict(np.load(GOLDEN / f"{name}.npz"))
    shapes = json.loads(str(golden["shapes"])) | json.loads(str(golden["statistics_shapes"]))
    state = {key: weights(key, shape) for key, shape in shapes.items()}
    x = jnp.asarray(np.moveaxis(image(case.image, golden["draw"]), 1, -1))
    model = models.create(variant(name), case.classes, **case.options)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    convert = models.variant(variant(name)).convert
    return Setup(golden, x, torch_weights.to_variables(convert(state), like))


def network(name, **more):
    case = CASES[name]
    options = dict(case.options) | more
    for rate in {"dropout", "drop_path"} & set(models.options(variant(name))):
        options[rate] = 0.0
    return models.create(variant(name), case.classes, **options)


def outputs(name):
    """(logits, feature maps) in evaluation mode."""
    found = setup(name)

    @jax.jit
    def apply(variables, x):
        logits = network(name).apply(variables, x)
        pyramid = CASES[name].features
        return logits, network(name, features_only=True).apply(variables, x) if pyramid else ()

    return apply(found.variables, found.image)


def pairs(name, logits, features) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ours, the reference's) elements that the golden file holds, array by array."""
    golden, start = setup(name).golden, 0
    yield sample(logits, LOGITS), golden["logits"]
    for value in features:
        ours = sample(value, FEATURES)
        yield ours, golden["features"][start : start + len(ours)]
        start += len(ours)


def deviation(name) -> float:
    """The largest difference between ours and the reference's, relative to the largest value."""
    return max(
        float(np.abs(ours - expected).max() / np.abs(expected).max())
        for ours, expected in pairs(name, *outputs(name))
    )
