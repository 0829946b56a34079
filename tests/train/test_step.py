"""The pure step: accumulation, averaging, determinism, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxvision import models
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.classification.task import Classification
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.segmentation.task import Segmentation
from jaxvision.train import optimizer
from jaxvision.train.step import Group, ema_decay, init_state, init_variables, make_train_step

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


def state_of(task, rule, ema=False, shape=(8, 8, 1)):
    groups = {"main": Group(rule)}
    fresh = lambda: init_variables(task, 0, image_spec(shape))  # noqa: E731
    return jax.jit(lambda: init_state(fresh(), groups, ema=ema))()


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


def test_nothing_is_computed_of_gradients_of_what_is_frozen():
    task, tx, batch = classification(hidden=(16, 16)), optax.sgd(0.1), batch_of()
    state = state_of(task, tx)
    whole, sums = step_of(task, Group(tx))(state, batch)
    learns = optimizer.learning(("^0/",), state.params)
    frozen = step_of(task, Group(tx, learns=learns))
    part, part_sums = frozen(state, batch)
    for name, tree in part.params.items():
        expected = state.params[name] if name == "0" else whole.params[name]
        jax.tree.map(np.testing.assert_array_equal, tree, expected)
    assert 0 < float(part_sums["gradient_norm"].total) < float(sums["gradient_norm"].total)
    costs = [
        step.lower(state, batch).compile().cost_analysis()["flops"]
        for step in (step_of(task, Group(tx)), frozen)
    ]
    first = 64 * 16 * 8 * 2  # of the first layer's gradient
    assert costs[0] - costs[1] > 0.9 * first


class Pixels(nn.Module):
    """The logits of two classes are (w, 0) times the pixel; in training, with a second head."""

    auxiliary: bool = False

    @nn.compact
    def __call__(self, image, train=False):
        scores = image.astype(jnp.float32) * self.param("w", nn.initializers.zeros, (1,))
        logits = jnp.concatenate([scores, jnp.zeros_like(scores)], -1)
        return {"logits": logits, "aux": 2 * logits} if train and self.auxiliary else logits


def uneven_pixels():
    """Two images: 16 pixels of class 0 count in one, 1 pixel of class 1 in the other."""
    truth = np.full((2, 4, 4), 255)
    truth[0], truth[1, 0, 0] = 0, 1
    return {
        "image": jnp.full((2, 4, 4, 1), 255, jnp.uint8),
        "segmentation": jnp.asarray(truth, jnp.uint8),
        "valid": jnp.ones(2, bool),
    }


def gradient_of(task, accumulate, batch):
    tx = optax.sgd(1.0)
    state, sums = step_of(task, Group(tx, accumulate=accumulate))(
        state_of(task, tx, shape=batch["image"].shape[1:]), batch
    )
    return float(state.params["w"][0]), sums["loss"].compute("loss")["loss"]


def test_accumulation_counts_each_pixel_alike():
    """At w = 0 each pixel of class 0 pulls by 1/2, of class 1 by -1/2: (16 - 1) / 2 / 17."""
    task = Segmentation(Pixels(), ("a", "b"), Inputs((0.0,), (1.0,), (), 2))
    for accumulate in (1, 2):
        gradient, loss = gradient_of(task, accumulate, uneven_pixels())
        assert gradient == pytest.approx(15 / 34)  # 0.4412; not 0, the mean of 1/2 and -1/2
        assert loss == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    "options",
    [
        {"class_weights": (1.0, 5.0)},
        {"criterion": "cross_entropy+focal"},
        {"auxiliary_weight": 0.4, "label_smoothing": 0.1},
        {"l2": 0.5},
    ],
    ids=str,
)
def test_accumulation_is_the_whole_batch_whatever_the_terms(options):
    model = Pixels(auxiliary="auxiliary_weight" in options)
    task = Segmentation(model, ("a", "b"), Inputs((0.0,), (1.0,), (), 2), **options)
    whole, parts = (gradient_of(task, accumulate, uneven_pixels()) for accumulate in (1, 2))
    assert parts == pytest.approx(whole, rel=1e-6)
    assert whole[0] != pytest.approx(0, abs=0.01)


def test_accumulated_losses_of_regions_are_means_over_micro_batches():
    task = Segmentation(Pixels(), ("a", "b"), Inputs((0.0,), (1.0,), (), 2), criterion="dice")
    batch = uneven_pixels()
    each = [
        gradient_of(task, 1, jax.tree.map(lambda x, i=i: x[i : i + 1], batch))[0] for i in (0, 1)
    ]
    assert gradient_of(task, 2, batch)[0] == pytest.approx(np.mean(each), abs=1e-6)
    empty = {**batch, "segmentation": batch["segmentation"].at[1].set(255)}
    assert gradient_of(task, 2, empty)[0] == pytest.approx(each[0])  # nothing there, nothing counts


@pytest.mark.slow
def test_weights_of_micro_batches_cost_no_pass_through_the_network():
    task, tx = classification("resnet8_cifar"), optax.sgd(0.1)
    state, batch = state_of(task, tx), batch_of()
    text = step_of(task, Group(tx, accumulate=2)).lower(state, batch).compile().as_text()
    whole = step_of(task, Group(tx)).lower(state, batch).compile().as_text()
    count = lambda hlo: hlo.count(" convolution(") + hlo.count(" dot(")  # noqa: E731
    assert 0 < count(text) <= count(whole)


def test_averages_follow_the_definition():
    """Weights and batch statistics, by a decay that rises as that of timm's ModelEmaV3."""
    task, tx, batch = classification("resnet8_cifar"), optax.sgd(0.5), batch_of()
    state = state_of(task, tx, ema=True)
    step = step_of(task, Group(tx), ema=0.4)
    expected = state.variables()
    for decay in (0.0, 1 - 2 ** (-2 / 3), 0.4):  # 1 - 3^(-2/3) is 0.52
        state, _ = step(state, batch)
        expected = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * p, expected, state.variables()
        )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, state.variables(averaged=True), expected)
    assert state.ema.keys() == {"params", "batch_stats"}
    assert state.variables()["params"] is state.params


def test_averages_forget_the_initial_values():
    """A constant decay of 0.999 would leave 74 % of them after 300 steps."""
    assert float(ema_decay(0.999, jnp.int32(0))) == 0
    steps = jnp.array([1, 10, 100, 1000, 10**6])
    # timm.utils.ModelEmaV3(network, 0.999, use_warmup=True).get_decay(step + 1), timm 1.0.31
    given = [0.3700394750525634, 0.7978199917664258, 0.9538909949722393, 0.9900066611160449, 0.999]
    np.testing.assert_allclose(ema_decay(0.999, steps), given, rtol=1e-5)


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


def test_frozen_statistics_are_used_and_kept():
    task, tx, batch = classification("resnet8_cifar"), optax.sgd(0.1), batch_of()
    state = state_of(task, tx)
    seen = {"mean": jnp.float32(0.25), "var": jnp.float32(2.0)}
    started = jax.tree.map(jnp.copy, state.model_state)
    bn = started["batch_stats"]["bn1"]
    started["batch_stats"]["bn1"] = {k: jnp.full_like(v, seen[k]) for k, v in bn.items()}
    state = state.replace(model_state=started)
    some = step_of(task, Group(tx), freeze_statistics=("^bn1", "layer1_0/"))(state, batch)[0]
    before, after = (one.model_state["batch_stats"] for one in (state, some))
    for norm in ("bn1", "layer1_0"):
        jax.tree.map(np.testing.assert_array_equal, after[norm], before[norm])
    assert float(jnp.abs(after["layer2_0"]["bn1"]["mean"]).max()) > 0
    every, sums = step_of(task, Group(tx), freeze_statistics=(".",))(state, batch)
    jax.tree.map(np.testing.assert_array_equal, every.model_state, state.model_state)
    # In training, too, the network is the one that evaluation sees.
    seen = task.evaluate(state.variables(), batch, KEY)[0]["loss"].compute("l")["l"]
    assert sums["loss"].compute("l")["l"] == pytest.approx(seen, rel=1e-5)
    scale = lambda one: one.params["bn1"]["scale"]  # noqa: E731
    assert not np.array_equal(scale(every), scale(state))  # which still learns


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
