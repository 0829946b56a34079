"""Every network against its PyTorch reference: golden files of tests/parity/generate.py.

The weights are made from the reference's names, so the naming rule and the conversions are tested
with the networks.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.cases import CASES, FAMILIES, GRADIENTS, PARAMETERS, variant
from parity.compare import network, outputs, pairs, setup
from parity.deterministic import labels, sample

from jaxvision import models
from jaxvision.interop import torch_weights

SLOW = pytest.mark.slow
TRAINED = [name for name, case in CASES.items() if case.gradients]
# Their training step is computed in double precision: in single precision the rounding of some
# processors decides the slope of a ReLU or the place of a maximum, and shows in the third digit.
NEAR_KINKS = (
    *("densenet121", "segnet", "unet_resnet18"),
    *("unet_resnet18_shallow", "deeplabv3plus_resnet18_shallow"),
)


def marked(names, *slow):
    """Cases whose code a smaller one runs as well are slow."""
    return [pytest.param(name, marks=SLOW) if CASES[name].slow in slow else name for name in names]


@pytest.mark.parametrize("name", marked(CASES, "all"))
def test_logits_and_features(name):
    found = setup(name)
    logits, features = outputs(name)
    assert logits.shape == tuple(found.golden["logits_shape"])
    shapes = json.loads(str(found.golden["features_shapes"]))
    assert [list(value.shape) for value in features] == shapes
    for ours, expected in pairs(name, logits, features):
        compare(ours, expected)


def compare(ours, expected):
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())


@functools.cache
def training_step(name):
    """(loss, gradients, running statistics), the latter two in the order of the golden file."""
    found, dtype = setup(name), np.float64 if name in NEAR_KINKS else np.float32
    double = functools.partial(np.asarray, dtype=np.float64)
    image, variables = found.image, found.variables
    if dtype == np.float64:
        image, variables = jax.tree.map(double, (image, variables))
    shapes, statistics_shapes = (
        json.loads(str(found.golden[key])) for key in ("shapes", "statistics_shapes")
    )
    rest = {key: value for key, value in variables.items() if key != "params"}
    rows = (len(image), *found.golden["logits_shape"][1:-1])
    truth = labels(rows, CASES[name].classes)

    precision = {} if dtype == np.float32 else {"dtype": dtype}

    @jax.jit
    def step(params):
        def loss(params):
            output, new = network(name, **precision).apply(
                {"params": params, **rest}, image, train=True, mutable=list(rest)
            )
            heads = output.values() if isinstance(output, dict) else [output]
            nll = optax.softmax_cross_entropy_with_integer_labels
            return sum(nll(logits, truth).mean() for logits in heads), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.enable_x64(dtype == np.float64):
        (loss, new), gradients = step(variables["params"])
    ours = torch_weights.to_state_dict({"params": gradients, **new})
    ours = {key: value for key, value in ours.items() if not key.endswith("num_batches_tracked")}
    arrays = aligned(name, shapes | statistics_shapes, ours)
    count = len(arrays) - len(statistics_shapes)
    return float(loss), arrays[:count], arrays[count:]


def aligned(name, shapes, ours):
    """Arrays of ours in the reference's order of names."""
    marked = {key: np.full(shape, i) for i, (key, shape) in enumerate(shapes.items())}
    convert = models.variant(variant(name)).convert
    order = {key: value.flat[0] for key, value in convert(marked).items()}
    assert sorted(order) == sorted(ours)
    return [ours[key] for key in sorted(order, key=order.get)]


@pytest.mark.parametrize("name", marked(TRAINED, "all", "training"))
def test_loss_and_gradients_of_a_training_step(name):
    golden, tolerance = setup(name).golden, 1e-3
    loss, gradients, _ = training_step(name)
    np.testing.assert_allclose(loss, golden["loss"], 1e-4)
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    # A parameter that the next norm takes out again has a gradient of nothing but rounding.
    rounding = 1e-6 * max(norms)
    np.testing.assert_allclose(norms, golden["norms"], tolerance, rounding)
    samples = [sample(gradient, GRADIENTS) for gradient in gradients]
    # An element is compared with the root mean square of its gradient: some are near zero.
    size = np.concatenate(
        [np.full(len(s), n / g.size**0.5) for s, n, g in zip(samples, norms, gradients)]
    )
    error = np.abs(np.concatenate(samples) - golden["gradients"])
    assert np.all(error <= tolerance * (size + np.abs(golden["gradients"])) + rounding)


@pytest.mark.parametrize("name", marked(TRAINED, "all", "training"))
def test_running_statistics_of_a_training_step(name):
    _, _, statistics = training_step(name)
    if not statistics:
        pytest.skip("no batch norm")
    ours = np.concatenate([sample(value, GRADIENTS) for value in statistics])
    compare(ours, setup(name).golden["statistics"])


def of_classes():
    """Networks whose output is scores of classes; others are in test_task_networks.py."""
    roles = ("backbones", "segmentation", "pose")
    return [name for name in models.names() if models.variant(name).role in roles]


def test_every_variant_is_counted():
    assert sorted(PARAMETERS) == of_classes()


def test_every_family_has_a_case():
    modules = {models.variant(variant(name)).module for name in CASES}
    assert modules == {models.variant(name).module for name in of_classes()}


def counted():
    """All variants; slow are those that are not the smallest of their module, and one of NASNet."""
    by_size = sorted(PARAMETERS, key=PARAMETERS.get, reverse=True)
    smallest = {models.variant(name).module: name for name in by_size}.values()
    kept = set(smallest) - {"nasnet_4a1056"}  # twelve cells: fifteen seconds
    return [name if name in kept else pytest.param(name, marks=SLOW) for name in PARAMETERS]


@pytest.mark.parametrize("name", counted())
def test_parameters(name):
    classes = next(getattr(f, "CLASSES", 1000) for f in FAMILIES if name in f.PARAMETERS)
    model = models.create(name, classes)
    image = jax.ShapeDtypeStruct((1, *models.variant(name).input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
