"""The pure step: accumulation, averaging, determinism, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import models
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.classification.task import Classification
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.segmentation.task import Segmentation
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)

RNG = np.random.default_rng(0)


def batch_of(count=8, size=8, channels=1, classes=4):
    return {
        "image": jnp.asarray(RNG.integers(0, 256, (count, size, size, channels)), jnp.uint8),
        "label": jnp.asarray(RNG.integers(0, classes, count), jnp.int32),
        "valid": jnp.ones(count, bool),
    }


def classification(name="mlp", augmentations=(), **options):
    model = models.create(name, 4, **options)
    return Classification(model, tuple("abcd"), Inputs((0.5,), (0.25,), augmentations, 4))


def state_of(task, optimizer, ema=False, shape=(8, 8, 1)):
    groups = {"main": Group(optimizer)}
    return jax.jit(lambda: init_state(init_variables(task, 0, image_spec(shape)), groups, ema))()


def step_of(task, group, seed=0, **options):
    return jax.jit(make_train_step(task, {"main": group}, seed=seed, **options))


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    task, tx, batch = classification(hidden=(16,)), optax.sgd(0.1), batch_of()
    steps = (step_of(task, Group(tx)), step_of(task, Group(tx, accumulate=4)))
    (whole, one), (parts, four) = (step(state_of(task, tx), batch) for step in steps)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params)):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    assert one["loss"].compute("l")["l"] == pytest.approx(four["loss"].compute("l")["l"], rel=1e-5)
    assert int(four["accuracy"].count) == 8


def test_averaged_weights_follow_the_definition():
    task, tx, batch = classification(hidden=(4,)), optax.sgd(0.5), batch_of()
    state = state_of(task, tx, ema=True)
    step = step_of(task, Group(tx), ema=0.9)
    expected = state.params
    for _ in range(3):
        state, _ = step(state, batch)
        expected = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, expected, state.params)
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert state.variables(averaged=True)["params"] is state.ema
    assert state.variables()["params"] is state.params


def test_randomness_comes_from_seed_and_step_alone():
    augmentations = ({"name": "flip_horizontal"},)
    task = classification(augmentations=augmentations, dropout=0.5, hidden=(16,))
    tx, batch = optax.sgd(0.1), batch_of()

    def losses(seed, start):
        step, state = step_of(task, Group(tx), seed=seed), state_of(task, tx)
        return float(step(state.replace(step=jnp.int32(start)), batch)[1]["loss"].total)

    assert losses(0, 0) == losses(0, 0)
    assert losses(0, 0) != losses(0, 1)
    assert losses(0, 0) != losses(1, 0)


def test_batch_statistics_are_updated_by_torch_s_rule():
    task, tx = classification("resnet8_cifar"), optax.sgd(0.0)
    state, _ = step_of(task, Group(tx))(state_of(task, tx), batch_of())
    mean = state.model_state["batch_stats"]["bn1"]["mean"]
    assert float(jnp.abs(mean).max()) > 0
    assert state.model_state["batch_stats"].keys() == {"bn1", *(f"layer{i}_0" for i in (1, 2, 3))}


def test_rows_without_mask_do_not_count():
    task = classification(hidden=(8,))
    variables = jax.jit(lambda: init_variables(task, 0, image_spec((8, 8, 1))))()
    batch = batch_of(8)
    padded = {**batch, "valid": jnp.arange(8) < 5}
    first = jax.tree.map(lambda x: x[:5], batch)
    for name, a in task.evaluate(variables, padded, KEY)[0].items():
        b = task.evaluate(variables, first, KEY)[0][name]
        assert a.compute(name)[name] == pytest.approx(b.compute(name)[name], rel=1e-6)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8_cifar", "vit_mnist", "unet_small"])
def test_bfloat16_computes_near_float32_with_float32_parameters(name):
    shape = (32, 32, 1)
    image = jnp.asarray(RNG.normal(size=(2, *shape)), jnp.float32)
    options = {"width": 8, "depth": 2} if name == "unet_small" else {}
    model = models.create(name, 5, dtype=jnp.bfloat16, **options)
    variables = jax.jit(model.init)(jax.random.key(0), image)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    low = jax.jit(model.apply)(variables, image)
    high = jax.jit(models.create(name, 5, **options).apply)(variables, image)
    assert low.dtype == jnp.bfloat16
    error = jnp.linalg.norm(low.astype(jnp.float32) - high) / jnp.linalg.norm(high)
    assert 0 < float(error) < 0.05


def test_segmentation_ignores_void_in_loss_and_metrics():
    model = models.create("unet", 3, width=4, depth=2)
    task = Segmentation(model, tuple("abc"), Inputs((0.5,), (0.25,), (), 3))
    variables = jax.jit(lambda: init_variables(task, 0, image_spec((8, 8, 1))))()
    evaluate = jax.jit(task.evaluate)
    truth = RNG.integers(0, 3, (4, 8, 8))
    image = jnp.asarray(RNG.integers(0, 256, (4, 8, 8, 1)), jnp.uint8)
    batch = {"image": image, "segmentation": jnp.asarray(truth), "valid": jnp.ones(4, bool)}
    void = {**batch, "segmentation": batch["segmentation"].at[:, :4].set(255)}
    counts = evaluate(variables, void, KEY)[0]["confusion"].counts
    assert int(counts.sum()) == 4 * 4 * 8
    guess = np.asarray(jax.jit(task.predict)(variables, {"image": image}, KEY)["segmentation"])[
        :, 4:
    ]
    for i in range(3):
        for j in range(3):
            assert counts[i, j] == ((truth[:, 4:] == i) & (guess == j)).sum()
    other = {
        **void,
        "segmentation": jnp.where(void["segmentation"] == 255, 7, void["segmentation"]),
    }
    one, two = (evaluate(variables, b, KEY)[0]["loss"].total for b in (other, void))
    assert float(one) == float(two)
