"""Every network against its PyTorch reference: golden files of tests/parity/generate.py.

The weights are made from the reference's names, so the naming rule and the conversions are tested
with the networks.
"""

import functools
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.cases import CASES, GOLDEN, GRADIENTS, LOGITS
from parity.deterministic import image, labels, sample, weights

from jaxvision import models
from jaxvision.interop import torch_weights


@dataclass(frozen=True)
class Outcome:
    """What both made of one batch; gradients and statistics in the order of the golden file."""

    golden: dict[str, np.ndarray]
    logits: np.ndarray
    loss: float
    gradients: list[np.ndarray]
    statistics: list[np.ndarray]


def aligned(name, shapes, ours):
    """Arrays of ours in the reference's order of names."""
    marked = {key: np.full(shape, i) for i, (key, shape) in enumerate(shapes.items())}
    order = {key: value.flat[0] for key, value in models.variant(name).convert(marked).items()}
    assert sorted(order) == sorted(ours)
    return [ours[key] for key in sorted(order, key=order.get)]


@functools.cache
def outcome(name):
    case, golden = CASES[name], dict(np.load(GOLDEN / f"{name}.npz"))
    shapes, statistics_shapes = (
        json.loads(str(golden[key])) for key in ("shapes", "statistics_shapes")
    )
    state = {key: weights(key, shape) for key, shape in (shapes | statistics_shapes).items()}
    model = models.create(name, case.classes, **case.options)
    x = jnp.asarray(image(case.image, golden["draw"]).transpose(0, 2, 3, 1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    variables = torch_weights.to_variables(models.variant(name).convert(state), like)
    params = variables.pop("params")
    truth = labels((len(x), *golden["logits_shape"][1:-1]), case.classes)

    @jax.jit
    def step(params, rest):
        def loss(params):
            logits, new = model.apply({"params": params, **rest}, x, train=True, mutable=list(rest))
            nll = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
            return nll.mean(), new

        logits = model.apply({"params": params, **rest}, x, train=False)
        return logits, *jax.value_and_grad(loss, has_aux=True)(params)

    logits, (loss, new), gradients = step(params, variables)
    assert logits.shape == tuple(golden["logits_shape"])
    new = torch_weights.to_state_dict(dict(new))
    running = {key: value for key, value in new.items() if "running" in key}
    return Outcome(
        golden,
        np.asarray(logits),
        float(loss),
        aligned(name, shapes, torch_weights.to_state_dict({"params": gradients})),
        [running[key] for key in statistics_shapes],
    )


@pytest.mark.parametrize("name", CASES)
def test_logits(name):
    result = outcome(name)
    expected = result.golden["logits"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(sample(result.logits, LOGITS), expected, 1e-4, 1e-4 * scale)
    np.testing.assert_allclose(result.loss, result.golden["loss"], 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_training_step(name):
    result = outcome(name)
    norms = [np.linalg.norm(gradient) for gradient in result.gradients]
    np.testing.assert_allclose(norms, result.golden["norms"], 1e-3)
    samples = [sample(gradient, GRADIENTS) for gradient in result.gradients]
    # An element is compared with the root mean square of its gradient: some are near zero.
    size = np.concatenate(
        [np.full(len(s), n / g.size**0.5) for s, n, g in zip(samples, norms, result.gradients)]
    )
    error = np.abs(np.concatenate(samples) - result.golden["gradients"])
    assert np.all(error <= 1e-3 * (size + np.abs(result.golden["gradients"])))


@pytest.mark.parametrize("name", ["resnet20_cifar", "unet"])
def test_running_statistics_of_a_training_step(name):
    result = outcome(name)
    ours = np.concatenate([sample(value, GRADIENTS) for value in result.statistics])
    expected = result.golden["statistics"]
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())


def parameters(name, **options):
    entry = models.variant(name)
    classes = {"unet": 2, "vit_": 1000}.get(name[:4], 10) if name != "vit_mnist" else 10
    model = models.create(name, classes, **options)
    shape = (1, *((188, 188, 1) if name == "unet_valid" else entry.input_shape))
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


# Of the references; resnet*_cifar by He et al. 2015, table 6, in thousands or millions.
PARAMETERS = {
    "mlp": 308_310,
    "mlp_256x2": 269_322,
    "lenet5": 61_706,
    "resnet8_cifar": 75_290,
    "resnet14_cifar": 172_506,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet1202_cifar": 19_421_274,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_large_patch16_224": 304_326_632,
    "vit_mnist": 499_722,
    "unet": 36_957_314,
    "unet_valid": 36_950_338,
    "unet_small": 9_243_202,
}


def test_every_variant_is_counted():
    assert sorted(PARAMETERS) == models.names()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    assert parameters(name) == PARAMETERS[name]
