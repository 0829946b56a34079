"""Self-supervised learning by teachers: beside PyTorch, and what views are shown."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity import self_supervised as reference
from parity.deterministic import sample, weights

from jaxvision import runs, tasks
from jaxvision.classical.probes import knn_accuracy
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.losses.contrastive import contrast
from jaxvision.tasks import configuration
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pretraining import views
from jaxvision.train import run
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

CONFIGS = Path(__file__).parents[2] / "configs" / "pretraining"
FOUND = np.load(reference.GOLDEN)
KEY = jax.random.key(0)


def task_of(method, **options):
    config = tasks.default_config("pretraining")
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = {**reference.VIT, "width": reference.WIDTH}
    own = config.pretraining
    own.method = method
    own.hidden, own.bottleneck = reference.HIDDEN, reference.BOTTLENECK
    own.prototypes, own.teacher_momentum = reference.PROTOTYPES, reference.MOMENTUM
    own.update(options)
    return tasks.create(config, Facts(("a", "b")))


SCHEDULES = {
    "first_teacher_temperature": reference.FIRST,
    "teacher_temperature": reference.LAST,
    "teacher_temperature_warmup": reference.WARMUP,
    "frozen_prototypes": reference.FROZEN,
}


def keeping_gradients():
    """Gives gradients on as they are; its state is the last one."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda g, *_: (g, g)
    )


def parts(tree):
    tensors = torch_weights.to_state_dict({"params": tree})
    return np.concatenate([sample(tensors[key], reference.KEPT) for key in sorted(tensors)])


def close(ours, expected):
    # PyTorch itself, in float32, is 2e-4 away: batch norms of few images amplify rounding.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=3e-4 * scale)


@pytest.mark.parametrize(("method", "options"), [("dino", SCHEDULES), ("mocov3", {})])
def test_two_steps_are_those_of_the_authors(method, options):
    task = task_of(method, **options)
    batches = reference.batches()
    spec = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batches[0].items()}
    variables = init_variables(task, 0, spec)
    shapes = json.loads(str(FOUND[f"{method}/shapes"]))
    state_dict = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
    params = torch_weights.to_variables(state_dict, {"params": variables["params"]})["params"]
    variables |= {"params": params, "teacher": jax.tree.map(jnp.copy, task.taught(params))}
    rule = optax.chain(keeping_gradients(), optax.sgd(reference.RATE))
    groups = {"main": Group(rule)}
    state = init_state(variables, groups)
    step = jax.jit(make_train_step(task, groups, seed=0, total=reference.TOTAL))
    losses = []
    for number, batch in enumerate(batches):
        state, sums = step(state, {**batch, "valid": jnp.ones(reference.BATCH, bool)})
        losses.append(float(sums["loss"].total))
        close(parts(state.opt_state["main"][0]), FOUND[f"{method}/gradient {number}"])
    np.testing.assert_allclose(losses, FOUND[f"{method}/losses"], rtol=1e-5)
    close(parts(state.params), FOUND[f"{method}/student"])
    close(parts(state.model_state["teacher"]), FOUND[f"{method}/teacher"])
    if method == "dino":
        close(state.model_state["center"]["value"], FOUND["dino/center"])


def test_the_temperature_of_the_teacher_rises():
    task = task_of("dino", **SCHEDULES)
    found = [float(task.temperature_at(part)) for part in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(found, [0.04, 0.055, 0.07, 0.07], rtol=1e-6)
    assert float(task_of("dino").temperature_at(0.0)) == pytest.approx(0.04)


def test_contrast_by_hand():
    queries = jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    keys = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    losses, right = contrast(queries, keys, 0.5)
    e = np.exp(2.0)
    expected = [np.log(e + 2) - 2, np.log(2 * e + 1) - 2, np.log(e + 2)]  # times 2 * 0.5
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert list(np.asarray(right)) == [True, True, False]


def test_each_view_has_its_own_augmentations():
    bright = np.full((2, 4, 8, 8, 3), 200, np.uint8)
    batch = {"views_global": jnp.asarray(bright), "views_local": jnp.asarray(bright[:, :1])}
    turn = {"name": "random_solarize", "probability": 1.0}
    lists = views.checked({"global": [[turn], []]})
    inputs = Inputs((0.0,), (1.0,), ({"name": "random_solarize", "probability": 1.0},))
    found, others = views.of_batch(inputs, lists, batch, KEY)
    assert found.shape == (4, 2, 8, 8, 3)
    value, solarized = 200 / 255, 55 / 255
    np.testing.assert_allclose(
        found.mean((1, 2, 3, 4)), [solarized, value, solarized, value], rtol=1e-5
    )
    np.testing.assert_allclose(others["views_local"], solarized, rtol=1e-5)
    with pytest.raises(UserError, match=r"view in pretraining.augment 'globl'.*'global'"):
        views.of_batch(inputs, views.checked({"globl": [[]]}), batch, KEY)
    with pytest.raises(UserError, match="expected a list of augmentations for each view"):
        views.checked({"global": [turn]})
    with pytest.raises(UserError, match="Unknown augmentation 'random_solarise'"):
        views.checked({"global": [[{"name": "random_solarise"}]]})


def test_views_of_equal_images_differ_by_their_keys():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    inputs = Inputs((0.0,), (1.0,), ({"name": "random_color_jitter", "brightness": 0.9},))
    found, _ = views.of_batch(inputs, {}, {"image": jnp.asarray(image)}, KEY)
    assert np.abs(found[0] - found[1]).max() > 0.01
    again, _ = views.of_batch(inputs, {}, {"image": jnp.asarray(image)}, KEY)
    np.testing.assert_array_equal(found, again)


REDUCED = {"patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
RECIPES = {
    "dino": (REDUCED, {"pretraining.prototypes": 16, "pretraining.hidden": 8}),
    "mocov3": ({**REDUCED, "positions": "fixed"}, {"pretraining.hidden": 8}),
    "igpt": ({"size": 8, "width": 16, "depth": 1, "num_heads": 2}, {"data.palette": 4}),
}


def reduced(file, method):
    config = configuration.load(str(CONFIGS / f"{file}.py:{method}"))
    config.model.options, keys = RECIPES[method]
    config.model.dtype = "float32"
    for key, value in keys.items():
        configuration.set_key(config, key, value)
    return config


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("file", ["cifar10", "shapes", "imagenet"])
def test_every_recipe_gives_a_loss(file, method):
    config = reduced(file, method)
    task = tasks.create(config, Facts(("a", "b"), palette=((0.0,) * 3, (255.0,) * 3)))
    batch = {"valid": jax.ShapeDtypeStruct((4,), bool)}
    if method == "igpt":
        batch["image"] = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8)
    else:
        for name in config.pretraining.augment:
            batch[f"views_{name}"] = jax.ShapeDtypeStruct((4, 2, 16, 16, 3), jnp.uint8)
    variables = dict(jax.eval_shape(lambda: init_variables(task, 0, batch)))
    objective, _ = jax.eval_shape(task.loss, variables.pop("params"), variables, batch, KEY)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(objective))


def test_mocov3_trains_on_scenes(tmp_path):
    config = reduced("shapes", "mocov3")
    config.data.options = {"size": 64, "train": 32, "test": 16}
    config.train.batch_size, config.train.duration = 16, 2
    config.eval.every, config.schedule.warmup, config.log.tensorboard = 2, 0, False
    result = run(config, tmp_path / "run")
    assert 0 <= result["knn_accuracy"] <= 1
    trained = runs.open(tmp_path / "run").variables
    # What is frozen is as it began, for the teacher too.
    first, kept = (trained[kind]["backbone"]["patch_embed"] for kind in ("params", "teacher"))
    jax.tree.map(np.testing.assert_array_equal, first, kept)
    assert "predictor" not in trained["teacher"]


def test_methods_that_do_not_exist_are_named():
    with pytest.raises(UserError, match=r"Unknown method 'moco'.*mocov3"):
        task_of("moco")


def test_the_probe_of_neighbours_is_scikit_learns():
    pytest.importorskip("sklearn")
    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    x = (random.normal(size=(3, 5))[labels] + random.normal(size=(90, 5))).astype(np.float32)
    votes = KNeighborsClassifier(9, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = votes.fit(x[:60], labels[:60]).score(x[60:], labels[60:])
    assert knn_accuracy(x[:60], labels[:60], x[60:], labels[60:], 9) == pytest.approx(expected)
