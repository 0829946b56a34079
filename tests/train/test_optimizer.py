"""Optimisers, schedules, masks and freezing."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.tasks import default_config
from jaxvision.train import optimizer, schedule

PARAMS = {
    "stem": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)},
}


def configured(**changes):
    config = default_config()
    config.schedule.name = "constant"
    config.optimizer.learning_rate = 0.1
    for key, value in changes.items():
        group, leaf = key.split("__")
        config[group][leaf] = value
    return config


def run(config, gradients, params=PARAMS):
    """Parameters after one update per gradient tree."""
    rate = schedule.learning_rate(config, total=100, steps_per_epoch=10)
    tx = optimizer.build(config, params, rate)
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def full(value):
    return jax.tree.map(lambda p: jnp.full_like(p, value), PARAMS)


def test_sgd_momentum_and_coupled_decay_are_torch_s():
    # torch.optim.SGD: d = g + wd * w; v = m * v + d; w -= lr * v
    config = configured(optimizer__name="sgd", optimizer__weight_decay=0.5)
    params, _ = run(config, [full(1.0), full(1.0)])
    w, v = 1.0, 0.0
    b, u = 1.0, 0.0
    for _ in range(2):
        v = 0.9 * v + (1.0 + 0.5 * w)
        w -= 0.1 * v
        u = 0.9 * u + 1.0
        b -= 0.1 * u
    np.testing.assert_allclose(params["stem"]["kernel"], w, rtol=1e-6)
    np.testing.assert_allclose(params["stem"]["bias"], b, rtol=1e-6)  # decay_mask is "kernel$"


def test_nesterov_is_torch_s():
    config = configured(optimizer__name="sgd", optimizer__nesterov=True)
    params, _ = run(config, [full(1.0), full(2.0)])
    w, v = 1.0, 0.0
    for g in (1.0, 2.0):
        v = 0.9 * v + g
        w -= 0.1 * (g + 0.9 * v)
    np.testing.assert_allclose(params["stem"]["kernel"], w, rtol=1e-6)


def test_adamw_is_torch_s():
    config = configured(optimizer__name="adamw", optimizer__weight_decay=0.2)
    params, _ = run(config, [full(0.3), full(-0.1)])
    w, m, v = 2.0, 0.0, 0.0
    for t, g in ((1, 0.3), (2, -0.1)):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 0.1 * (0.2 * w + (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    np.testing.assert_allclose(params["head"]["kernel"], w, rtol=1e-5)


def test_rmsprop_is_torch_s():
    config = configured(optimizer__name="rmsprop", optimizer__momentum=0.0, optimizer__b2=0.99)
    params, _ = run(config, [full(0.5), full(0.2)])
    w, v = 1.0, 0.0
    for g in (0.5, 0.2):
        v = 0.99 * v + 0.01 * g * g
        w -= 0.1 * g / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(params["stem"]["kernel"], w, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lamb", "lion", "adafactor"])
def test_every_optimiser_minimises_a_quadratic(name):
    config = configured(optimizer__name=name, optimizer__learning_rate=0.02)
    params = {"layer": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])}}
    rate = schedule.learning_rate(config, total=300, steps_per_epoch=10)
    tx = optimizer.build(config, params, rate)

    def loss(p):
        return jnp.sum((p["layer"]["kernel"] - 0.7) ** 2)

    def step(carry, _):
        p, s = carry
        updates, s = tx.update(jax.grad(loss)(p), s, p)
        return (jax.tree.map(jnp.add, p, updates), s), loss(p)

    _, losses = jax.lax.scan(step, (params, tx.init(params)), None, length=300)
    assert losses[-1] < 0.02 * losses[0]


def test_weight_decay_goes_to_its_last_value_by_half_a_cosine():
    # DINO's: with no gradient AdamW only decays, w -= lr * decay * w.
    config = configured(optimizer__weight_decay=0.04, optimizer__last_weight_decay=0.4)
    rate = schedule.learning_rate(config, total=4, steps_per_epoch=1)
    tx = optimizer.build(config, PARAMS, rate, total=4)
    params, state, expected = PARAMS, tx.init(PARAMS), 1.0
    for step in range(4):
        updates, state = tx.update(full(0.0), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        expected *= 1 - 0.1 * (0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * step / 4)) / 2)
        np.testing.assert_allclose(params["stem"]["kernel"], expected, rtol=1e-6)
        np.testing.assert_array_equal(params["stem"]["bias"], 1.0)


def test_clipping_by_norm_and_by_value():
    config = configured(optimizer__name="sgd", optimizer__momentum=0.0, optimizer__clip_norm=1.0)
    params, _ = run(config, [full(10.0)])
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, params)
    norm = np.sqrt(sum(float(jnp.sum(m**2)) for m in jax.tree.leaves(moved)))
    assert norm == pytest.approx(0.1, rel=1e-5)
    config = configured(optimizer__name="sgd", optimizer__momentum=0.0, optimizer__clip_value=0.5)
    params, _ = run(config, [full(10.0)])
    np.testing.assert_allclose(params["stem"]["bias"], 1 - 0.05, rtol=1e-6)


def test_freezing_keeps_parameters_and_stores_no_moments():
    config = configured(
        optimizer__name="adamw", optimizer__weight_decay=0.1, optimizer__freeze=("^stem/",)
    )
    params, state = run(config, [full(1.0)] * 3)
    assert (params["stem"]["kernel"] == PARAMS["stem"]["kernel"]).all()
    assert (params["head"]["kernel"] != PARAMS["head"]["kernel"]).all()
    moments = [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "ndim", 0)]
    assert len(moments) == 4  # two moments of two parameters of the head


def test_learning_rate_multipliers_take_the_first_match():
    config = configured(
        optimizer__name="sgd",
        optimizer__momentum=0.0,
        optimizer__lr_multipliers=(("stem/kernel", 0.0), ("stem", 0.5)),
    )
    params, _ = run(config, [full(1.0)])
    np.testing.assert_allclose(params["stem"]["kernel"], 1.0)
    np.testing.assert_allclose(params["stem"]["bias"], 0.95)
    np.testing.assert_allclose(params["head"]["bias"], 0.9)


@pytest.mark.parametrize("key", ["optimizer__freeze", "optimizer__lr_multipliers"])
def test_a_pattern_without_match_names_its_neighbours(key):
    value = ("steem/kernel",) if key.endswith("freeze") else (("steem/kernel", 0.1),)
    with pytest.raises(UserError, match=r"matches no parameter.*stem/kernel"):
        run(configured(**{key: value}), [])
    value = ("(",) if key.endswith("freeze") else (("(", 0.1),)
    with pytest.raises(UserError, match="no regular expression"):
        run(configured(**{key: value}), [])


def test_batch_norms_to_freeze_must_exist():
    config = default_config()
    stats = {"batch_stats": {"layer1_0": {"bn1": {"mean": 0, "var": 0}}}}
    task = SimpleNamespace(groups={"main": ()})
    config.optimizer.freeze_statistics = ("bn1$",)
    optimizer.check_statistics(config, task, stats)
    with pytest.raises(UserError, match="matches no batch norm; the network has none"):
        optimizer.check_statistics(config, task, {})
    config.optimizer.freeze_statistics = ("layer1_0/bn2",)
    with pytest.raises(UserError, match=r"matches no batch norm. Near it: layer1_0/bn1\."):
        optimizer.check_statistics(config, task, stats)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("constant", {}, {0: 0.1, 99: 0.1}),
        ("constant", {"warmup": 10}, {0: 0.0, 5: 0.05, 10: 0.1, 50: 0.1}),
        ("step", {"milestones": ("50%", "75%")}, {49: 0.1, 50: 0.01, 74: 0.01, 75: 0.001}),
        ("step", {"milestones": ("50%",), "warmup": 10}, {9: 0.09, 49: 0.1, 50: 0.01}),
        ("polynomial", {"power": 0.9}, {0: 0.1, 50: 0.1 * 0.5**0.9, 100: 0.0}),
        ("cosine", {}, {0: 0.1, 50: 0.05, 100: 0.0}),
        ("cosine", {"final": 0.1, "warmup": "10%"}, {5: 0.05, 10: 0.1, 55: 0.055, 100: 0.01}),
        ("one_cycle", {}, {0: 0.004, 29: 0.1, 99: 4e-7, 100: 4e-7}),
    ],
)
def test_schedules(name, changes, expected):
    config = configured(schedule__name=name, **{f"schedule__{k}": v for k, v in changes.items()})
    rate = schedule.learning_rate(config, total=100, steps_per_epoch=10)
    for step, wanted in expected.items():
        assert float(rate(step)) == pytest.approx(wanted, rel=1e-4, abs=1e-9), step


TORCH = np.load(Path(__file__).parents[1] / "parity" / "schedules.npz")


@pytest.mark.parametrize("key", TORCH.files)
def test_schedules_are_those_of_torch(key):
    """Over 1, 2, 3, 10 and 1000 steps: golden file of tests/parity/generate.py."""
    name, steps = key.split("/")
    more = {
        "cosine": {"schedule__final": 0.01},
        "polynomial": {"schedule__power": 0.9},
        "step": {"schedule__milestones": ("50%", "75%")},
    }
    config = configured(schedule__name=name, **more.get(name, {}))
    rate = schedule.learning_rate(config, total=int(steps), steps_per_epoch=10)
    at = np.linspace(0, int(steps) - 1, len(TORCH[key])).round().astype(int)
    np.testing.assert_allclose(rate(jnp.asarray(at)), TORCH[key], 2e-5, 1e-7)


def test_a_step_schedule_needs_milestones_and_warm_up_must_fit():
    with pytest.raises(UserError, match="milestones"):
        schedule.learning_rate(configured(schedule__name="step"), total=9, steps_per_epoch=3)
    config = configured(schedule__name="cosine", schedule__warmup=20)
    with pytest.raises(UserError, match="warmup is 20 steps"):
        schedule.learning_rate(config, total=9, steps_per_epoch=3)


def test_reduce_on_plateau_waits_for_patience_as_torch_does():
    config = configured(
        optimizer__name="sgd",
        optimizer__momentum=0.0,
        schedule__name="plateau",
        schedule__patience=2,
        schedule__factor=0.5,
    )
    _, state = run(config, [full(0.0)])
    factors = []
    # torch.optim.lr_scheduler.ReduceLROnPlateau(factor=.5, patience=2) on these values.
    for value in (1.0, 0.9, 0.95, 0.95, 0.95, 0.5, 0.6, 0.6, 0.6):
        state = schedule.reduce_on_plateau(state, value, config, 1)
        factors.append(schedule.plateau_factor(state))
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
