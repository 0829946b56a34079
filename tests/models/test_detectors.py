"""Detectors against their PyTorch references, and what is promised of every one of them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import detectors
from parity.detectors import GOLDEN, GRADIENTS, OUTPUTS, STATISTICS
from parity.deterministic import image, sample

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops.forms import portable

CASES = {
    name: case for family in detectors.families().values() for name, case in family.CASES.items()
}
PARAMETERS = {
    name: (family.CLASSES, count)
    for family in detectors.families().values()
    for name, count in family.PARAMETERS.items()
}


LARGE = {n for family in detectors.families().values() for n in getattr(family, "LARGE", ())}


def marked(names, *slow):
    """Cases whose code another one runs as well are slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if CASES[name].slow in slow else name
        for name in names
    ]


EVERY, LEARNING = marked(CASES, "all"), marked(CASES, "all", "training")


class Setup:
    """A case with our network's variables filled by the reference's names."""

    def __init__(self, name):
        self.case, self.golden = CASES[name], dict(np.load(GOLDEN / f"{name}.npz"))
        self.shapes = json.loads(str(self.golden["shapes"]))
        self.statistics_shapes = json.loads(str(self.golden["statistics_shapes"]))
        self.dtype = np.float64 if self.case.double else np.float32
        options = {"dtype": self.dtype} if self.case.double else {}
        self.network = models.create(
            self.case.variant, self.case.classes, **self.case.options, **options
        )
        self.convert = models.variant(self.case.variant).convert
        x = np.moveaxis(image(self.case.image), 1, -1).astype(self.dtype)
        state = {
            key: self.case.weights(key, tuple(shape))
            for key, shape in (self.shapes | self.statistics_shapes).items()
        }
        with self.precision():
            like = jax.eval_shape(lambda: self.network.init(jax.random.key(0), x))
        variables = torch_weights.to_variables(self.convert(state), like)
        self.image, self.variables = x, jax.tree.map(self._cast, variables)
        self.targets = {k: self._cast(v) for k, v in detectors.targets(self.case).items()}
        self.inputs = {k: self._cast(v) for k, v in detectors.inputs(self.case).items()}

    def _cast(self, value):
        value = np.asarray(value)
        return value.astype(self.dtype) if value.dtype == np.float32 else value

    def precision(self):
        return jax.enable_x64(self.case.double)

    def aligned(self, state, shapes):
        """Arrays of ours in the reference's order of names."""
        every = self.shapes | self.statistics_shapes
        marked = {key: np.full(shape, i) for i, (key, shape) in enumerate(every.items())}
        order = {key: value.flat[0] for key, value in self.convert(marked).items()}
        wanted = [list(every).index(key) for key in shapes]
        by_index = {order[key]: np.asarray(value) for key, value in state.items() if key in order}
        return [by_index[index] for index in wanted]


@functools.cache
def setup(name):
    return Setup(name)


@functools.cache
def evaluation(name):
    """Images -> (raw outputs, detections)."""
    found = setup(name)

    @jax.jit
    def both(variables, x, more):
        # One body for both: what they share is traced twice, and compiled once.
        network = found.network
        raw = network.apply(variables, x, method="heads", **more)
        return raw, network.apply(variables, x, train=False, **more)

    def run(x):
        with found.precision():
            return jax.tree.map(np.asarray, both(found.variables, x, found.inputs))

    return run


@functools.cache
def evaluated(name):
    """(raw outputs, detections)."""
    return evaluation(name)(setup(name).image)


@functools.cache
def trained(name):
    """(losses by name, gradients, new statistics)."""
    found = setup(name)
    rest = dict(found.variables)
    params = rest.pop("params")

    @jax.jit
    def step(params, rest, targets, more):
        def loss(params):
            losses, new = found.network.apply(
                {"params": params, **rest},
                found.image,
                train=True,
                targets=targets,
                **more,
                rngs={"dropout": jax.random.key(0)},
                mutable=list(rest),
            )
            values = {name: ratio.value for name, ratio in losses.items()}
            return sum(values.values()), (values, new)

        (_, (losses, new)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return losses, gradients, new

    def run(targets):
        with found.precision():
            return jax.tree.map(np.asarray, step(params, rest, targets, found.inputs))

    return run


def compare(ours, expected, tolerance=1e-4):
    np.testing.assert_allclose(ours, expected, tolerance, tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", EVERY)
def test_raw_outputs(name):
    golden, (heads, _) = setup(name).golden, evaluated(name)
    keys = [key.removeprefix("heads/") for key in golden if key.startswith("heads/")]
    assert keys
    for key in keys:
        assert heads[key].shape == tuple(golden[f"heads_shape/{key}"])
        compare(sample(heads[key], OUTPUTS), golden[f"heads/{key}"])


DETECTED = marked([name for name, case in CASES.items() if not case.saturated], "all")


def compare_detections(name, ours, images):
    """With what the reference detects in these images."""
    found = setup(name)
    prefix = f"{images}/"
    golden = {k.removeprefix(prefix): v for k, v in found.golden.items() if k.startswith(prefix)}
    number = found.case.detections
    kept = np.arange(number) < golden["count"][:, None]
    np.testing.assert_array_equal(ours["valid"].sum(1), golden["count"])
    for key in ("labels", "scores", "boxes", "keypoints"):
        if key in ours:
            compare(ours[key][:, :number][kept], golden[key][kept])
    if found.case.masks:
        masks = np.where(kept[..., None, None], ours["masks"][:, :number], 0)
        masks = np.stack([sample(image, OUTPUTS) for image in masks])
        compare(masks, golden["masks"])
    assert not ours["scores"][~ours["valid"]].any()


@pytest.mark.parametrize("name", DETECTED)
def test_detections(name):
    found, (_, ours) = setup(name), evaluated(name)
    assert found.golden["detections/count"].sum() > 0
    assert ours["boxes"].dtype == found.dtype
    compare_detections(name, ours, "detections")


@pytest.mark.parametrize("name", DETECTED)
def test_detections_in_photographs(name):
    found = setup(name)
    assert found.golden["photographs/count"].all()
    x = np.moveaxis(detectors.photographs(found.case), 1, -1).astype(found.dtype)
    compare_detections(name, evaluation(name)(x)[1], "photographs")


@pytest.mark.parametrize("name", LEARNING)
def test_losses_gradients_and_statistics(name):
    found = setup(name)
    golden = found.golden
    losses, gradients, new = trained(name)(found.targets)
    expected = {k.removeprefix("losses/"): v for k, v in golden.items() if k.startswith("losses/")}
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(losses[key], value, 1e-4, err_msg=key)
    ours = found.aligned(torch_weights.to_state_dict({"params": gradients}), found.shapes)
    norms = [np.linalg.norm(gradient) for gradient in ours]
    rounding = 1e-6 * golden["norms"].max()
    np.testing.assert_allclose(norms, golden["norms"], 1e-3, rounding)
    samples = [sample(gradient, GRADIENTS) for gradient in ours]
    size = np.concatenate(
        [np.full(len(s), n / g.size**0.5) for s, n, g in zip(samples, norms, ours, strict=True)]
    )
    error = np.abs(np.concatenate(samples) - golden["gradients"])
    assert np.all(error <= 1e-3 * (size + np.abs(golden["gradients"])) + rounding)
    if found.statistics_shapes:
        statistics = found.aligned(torch_weights.to_state_dict(new), found.statistics_shapes)
        compare(np.concatenate([sample(v, STATISTICS) for v in statistics]), golden["statistics"])


@pytest.mark.parametrize("name", LEARNING)
def test_images_without_objects(name):
    found = setup(name)
    targets = found.targets | {"box_valid": np.zeros_like(found.targets["box_valid"])}
    losses, gradients, _ = trained(name)(targets)
    assert np.isfinite(list(losses.values())).all()
    assert (sum(losses.values()) > 0) == found.case.background
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", EVERY)
def test_weights_go_back_by_the_names_of_the_reference(name):
    found = setup(name)
    state = torch_weights.to_state_dict(found.variables)
    export = models.variant(found.case.variant).export
    state = {k: v for k, v in export(state).items() if not k.endswith("num_batches_tracked")}
    every = found.shapes | found.statistics_shapes
    assert {key: list(value.shape) for key, value in state.items()} == every
    for key, value in state.items():
        expected = found.case.weights(key, value.shape).astype(value.dtype)
        np.testing.assert_array_equal(value, expected)


COUNTED = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in PARAMETERS]


@pytest.mark.parametrize("name", EVERY)
def test_batches_of_unknown_size(name):
    """What `jaxvision export` asks of them."""
    found = setup(name)
    (count,) = jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((count, *found.image.shape[1:]), found.dtype)
    more = {
        key: jax.ShapeDtypeStruct((count, *value.shape[1:]), value.dtype)
        for key, value in found.inputs.items()
    }
    with found.precision(), portable():
        outputs = jax.eval_shape(found.network.apply, found.variables, image, **more)
    number = outputs["scores"].shape[1]
    assert outputs["boxes"].shape == (count, number, 4)
    assert outputs["valid"].shape == outputs["labels"].shape == (count, number)


@pytest.mark.parametrize("name", COUNTED)
def test_parameters(name):
    classes, expected = PARAMETERS[name]
    model = models.create(name, classes)
    x = jax.ShapeDtypeStruct((1, *models.variant(name).input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected


def test_every_variant_of_a_family_is_counted():
    modules = {models.variant(case.variant).module for case in CASES.values()}
    every = {n for n in models.names() if models.variant(n).module in modules}
    assert every == set(PARAMETERS)


@pytest.mark.parametrize("name", EVERY)
def test_training_without_objects_to_learn_is_refused(name):
    found = setup(name)
    rest = [key for key in found.variables if key != "params"]
    with found.precision(), pytest.raises(UserError, match="needs targets"):
        jax.eval_shape(
            lambda: found.network.apply(
                found.variables,
                found.image,
                train=True,
                mutable=rest,
                rngs={"dropout": jax.random.key(0)},
            )
        )
