"""What the loop promises a task, and what a task promises the loop."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import models, tasks
from jaxvision.classical.probes import leave_one_out_accuracy
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import base, configuration
from jaxvision.tasks.generation.task import Adversarial
from jaxvision.tasks.pretraining.dino import Dino
from jaxvision.tasks.pretraining.views import GLOBAL
from jaxvision.train import optimizer
from jaxvision.train.progress import Progress, Watched, react
from jaxvision.train.step import Group, Update, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ROOT = Path(__file__).parents[2]


def images(count=8, size=8, channels=1):
    return jnp.asarray(RNG.integers(0, 256, (count, size, size, channels)), jnp.uint8)


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_configuration_has_the_keys_of_its_own_task_alone(name):
    config = tasks.default_config(name)
    assert config.task == name
    assert name in config
    assert not [other for other in tasks.TASKS if other != name and other in config]
    assert "loss" not in config
    assert configuration.from_json(configuration.to_json(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("classification", "loss.label_smoothing", "classification.label_smoothing"),
        ("classification", "distillation.kind", "classification.distillation.kind"),
        ("segmentation", "loss.name", "segmentation.loss"),
        ("segmentation", "loss.options", "segmentation.loss_options"),
        ("segmentation", "loss.hard_share", "segmentation.hard_share"),
        ("segmentation", "eval.void_class", "segmentation.void_class"),
        ("segmentation", "eval.scales", "segmentation.scales"),
    ],
)
def test_an_old_key_is_answered_with_its_new_name(task, old, new):
    with pytest.raises(UserError, match=f"'{old}' is now '{new}'"):
        configuration.override(tasks.default_config(task), old, "1")


def test_an_old_key_in_a_config_file_is_answered_too(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(
        "from jaxvision.tasks import default_config\n"
        "def get_config(variant=''):\n"
        "    config = default_config('segmentation')\n"
        "    config.eval.scales = (1.0, 2.0)\n"
        "    return config\n"
    )
    with pytest.raises(UserError, match=r"eval\.scales is now segmentation\.scales"):
        configuration.load(str(path))


def test_a_configuration_written_before_the_keys_moved_is_read():
    stored = '{"task": "segmentation", "eval": {"scales": [0.5]}, "loss": {"name": "dice"}}'
    config = configuration.from_json(stored)
    assert config.segmentation.scales == (0.5,)
    assert config.segmentation.loss == "dice"


# Names of tasks that are words of the field too: kinds of annotations, folders of networks, sources
# of data, and in detectors a loss.
WORDS = {"segmentation", "generation", "detection", "instances", "panoptic"}
# A task that is another one, and more.
INHERITED = {
    "detection": ("jaxvision/tasks/instances/", "jaxvision/tasks/panoptic/"),
    "instances": ("jaxvision/tasks/panoptic/",),
}
ALLOWED = {"jaxvision/tasks/__init__.py"}


def test_no_task_is_named_outside_its_folder():
    """Neither as a text nor in a comparison; commands and loop ask for capabilities."""
    found = []
    for path in sorted((ROOT / "jaxvision").rglob("*.py")):
        place, nodes = (
            path.relative_to(ROOT).as_posix(),
            list(ast.walk(ast.parse(path.read_text()))),
        )
        for name in tasks.TASKS:
            if place in ALLOWED or place.startswith(f"jaxvision/tasks/{name}/"):
                continue
            for node in nodes:
                named = isinstance(node, ast.Constant) and node.value == name
                named &= not place.startswith("jaxvision/models/detection/")
                asked = isinstance(node, ast.Compare) and "task" in ast.unparse(node.left)
                if (named and name not in WORDS) or (asked and f"'{name}'" in ast.unparse(node)):
                    found.append(f"{place}:{node.lineno}: {ast.unparse(node)}")
                module = getattr(node, "module", None) or ""
                inherits = place.startswith(INHERITED.get(name, ()))
                if isinstance(node, ast.ImportFrom) and f"tasks.{name}" in module and not inherits:
                    found.append(f"{place}:{node.lineno}: imports {node.module}")
    assert found == []


# -- steps -----------------------------------------------------------------------------------------


def gan():
    generator = models.create("dcgan_generator", size=8, channels=1, latent=4, width=2)
    return Adversarial(generator, models.create("dcgan_discriminator", width=2))


def sgd(task, rate=1.0):
    return {name: Group(optax.sgd(rate), owns) for name, owns in task.groups.items()}


def test_the_generator_learns_from_the_updated_discriminator():
    task = gan()
    groups = sgd(task, 0.5)
    state = init_state(init_variables(task, 0, base.image_spec((8, 8, 1))), groups)
    batch = {"image": images(), "valid": jnp.ones(8, bool)}
    used = {}

    class Watching(Update):
        def gradients(self, group, loss, state, batch, key):
            used[group] = state.params
            found = super().gradients(group, loss, state, batch, key)
            used[f"{group} gradient"] = found[0]
            return found

    new, sums = task.step(state, batch, KEY, Watching(groups, 1))
    assert list(used)[::2] == ["discriminator", "generator"]
    judge, seen = used["generator"]["discriminator"], new.params["discriminator"]
    jax.tree.map(np.testing.assert_array_equal, judge, seen)
    for name in task.groups:  # each group moves along its own gradient, and nothing else does
        expected = jax.tree.map(
            lambda p, g: p - 0.5 * g, state.params[name], used[f"{name} gradient"][name]
        )
        jax.tree.map(np.testing.assert_array_equal, new.params[name], expected)
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(used[f"{name} gradient"])) > 0
    assert {"discriminator_loss", "generator_loss"} < sums.keys()
    old_mean = state.model_state["batch_stats"]["generator"]["main_1"]["mean"]
    new_mean = new.model_state["batch_stats"]["generator"]["main_1"]["mean"]
    assert not np.array_equal(old_mean, new_mean)


def test_groups_have_rules_of_their_own_and_accumulate():
    task = gan()
    config = tasks.default_config("generation")
    config.optimizer.name, config.schedule.name = "sgd", "constant"
    config.optimizer.momentum, config.optimizer.learning_rate = 0.0, 0.25
    config.optimizer.groups = {
        "discriminator": {"optimizer": {"learning_rate": 0.5, "accumulate": 2}}
    }
    spec = base.image_spec((8, 8, 1))
    variables = init_variables(task, 0, spec)
    groups = optimizer.groups_of(
        config, task, variables["params"], spec, total=10, steps_per_epoch=5
    )
    assert [float(g.schedule(0)) for g in groups.values()] == [0.5, 0.25]
    assert [g.accumulate for g in groups.values()] == [2, 1]
    state = init_state(variables, groups)
    assert state.opt_state.keys() == {"discriminator", "generator"}
    step = jax.jit(make_train_step(task, groups, seed=0))
    _, sums = step(state, {"image": images(), "valid": jnp.ones(8, bool)})
    assert {"gradient_norm/discriminator", "gradient_norm/generator"} < sums.keys()
    config.optimizer.groups = {"judge": {}}
    with pytest.raises(UserError, match=r"group in optimizer\.groups 'judge'"):
        optimizer.groups_of(config, task, variables["params"], spec, total=1, steps_per_epoch=1)
    config.optimizer.groups = {"generator": {"optimizer": {"learning_rte": 1.0}}}
    with pytest.raises(UserError, match=r"optimizer\.learning_rte"):
        optimizer.groups_of(config, task, variables["params"], spec, total=1, steps_per_epoch=1)


def dino(**options):
    config = tasks.default_config("pretraining")
    config.model.name = "vit_mnist"
    config.model.options = {"depth": 1, "width": 8, "num_heads": 2, "head_dim": 4}
    config.pretraining.prototypes, config.pretraining.hidden = 6, 8
    config.pretraining.bottleneck = 4
    config.pretraining.update(options)
    return Dino.create(config, Facts(("a", "b")))


def test_the_teacher_follows_the_student_by_a_schedule():
    task = dino(teacher_momentum=0.5)
    groups = sgd(task, 0.1)
    spec = {GLOBAL: jax.ShapeDtypeStruct((4, 2, 8, 8, 1), jnp.uint8)}
    state = init_state(init_variables(task, 0, spec), groups)
    expected = state.model_state["teacher"]
    center = np.zeros(6)
    step = jax.jit(make_train_step(task, groups, seed=0, total=4))
    for number in range(3):
        batch = {
            GLOBAL: jnp.stack([images(4), images(4)], 1),
            "views_local": jnp.stack([images(4, 4)] * 3, 1),
            "valid": jnp.ones(4, bool),
        }
        views, others = task.views(batch, jax.random.split(jax.random.key(9))[0])
        assert views.shape == (2, 4, 8, 8, 1)
        assert others["views_local"].shape == (3, 4, 4, 4, 1)
        flat = views.reshape(-1, 8, 8, 1)
        taught = task.model.apply({"params": state.model_state["teacher"]}, flat)
        center = 0.9 * center + 0.1 * np.asarray(taught).mean(0)
        state, _ = step(state, batch)
        momentum = 1 - 0.5 * (1 + np.cos(np.pi * number / 4)) / 2
        expected = jax.tree.map(
            lambda t, s, m=momentum: m * t + (1 - m) * s, expected, state.params
        )
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
        jax.tree.map(close, state.model_state["teacher"], expected)
        # No augmentation is configured, so the views are what the step saw too.
        close(state.model_state["center"]["value"], center)


def test_the_loss_of_dino_is_the_cross_entropy_of_different_views():
    task = dino()
    variables = init_variables(task, 0, {GLOBAL: jax.ShapeDtypeStruct((3, 2, 8, 8, 1), jnp.uint8)})
    batch = {GLOBAL: jnp.stack([images(3), images(3)], 1), "valid": jnp.ones(3, bool)}
    params = variables.pop("params")
    loss, (_, sums) = task.loss(params, variables, batch, KEY)
    outputs = []
    for view in range(2):
        image = task.inputs.evaluate(batch[GLOBAL][:, view])
        outputs.append(np.asarray(task.model.apply({"params": params}, image), np.float64))
    expected = 0.0
    for teacher, student in ((0, 1), (1, 0)):  # the teacher starts as the student, centre at 0
        p = np.exp(outputs[teacher] / 0.04)
        p /= p.sum(-1, keepdims=True)
        log_q = outputs[student] / 0.1
        log_q -= np.log(np.exp(log_q).sum(-1, keepdims=True))
        expected += -(p * log_q).sum(-1).mean() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(sums["loss"].total) == pytest.approx(expected, rel=1e-4)


def test_networks_with_batch_statistics_are_refused():
    config = tasks.default_config("pretraining")
    config.model.name, config.pretraining.prototypes = "resnet8_cifar", 6
    task = Dino.create(config, Facts())
    with pytest.raises(UserError, match="without batch statistics"):
        task.init(KEY, base.image_spec((8, 8, 3)))


# -- evaluation ------------------------------------------------------------------------------------


def test_the_accuracy_of_neighbours_leaves_the_image_itself_out():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    labels = RNG.integers(0, 3, 60)
    features = (RNG.normal(size=(3, 5))[labels] + RNG.normal(size=(60, 5))).astype(np.float32)
    weights = lambda d: np.exp((1 - d) / 0.07)  # noqa: E731
    votes = KNeighborsClassifier(7, metric="cosine", weights=weights)
    expected = cross_val_score(votes, features, labels, cv=LeaveOneOut()).mean()
    assert leave_one_out_accuracy(features, labels, 7) == pytest.approx(expected)
    twins = np.repeat(features[:4], 2, axis=0)  # equal vectors, of which one is the image itself
    assert leave_one_out_accuracy(twins, np.repeat(np.arange(4), 2), 1) == 1.0


def watched(task="classification", **keys):
    config = tasks.default_config(task)
    for key, value in keys.items():
        configuration.set_key(config, key.replace("__", "."), value)
    kind = tasks.TASKS[task].task()
    return config, Watched.of(config, kind, {*kind.metrics, "surprise"})


def test_the_best_checkpoint_is_the_best_by_the_direction_declared():
    config, by = watched("generation")
    progress = Progress()
    for step, distance in ((1, 9.0), (2, 4.0), (3, 5.0), (4, float("nan"))):
        react(config, None, progress, {"frechet_distance": distance}, by, step)
    assert (progress.best_step, progress.best) == (2, 4.0)
    config, by = watched()
    progress = Progress()
    for step, accuracy in ((1, 0.2), (2, 0.7), (3, 0.5)):
        react(config, None, progress, {"accuracy": accuracy}, by, step)
    assert progress.best_step == 2


def test_metrics_without_a_direction_choose_nothing():
    with pytest.raises(UserError, match=r"neither higher nor lower values of 'generator_loss'"):
        watched("generation", checkpoint__best_metric="generator_loss")
    with pytest.raises(UserError, match="'surprise' are better"):
        watched(train__stop_metric="surprise")
    with pytest.raises(UserError, match=r"metric in train.stop_metric 'acuracy'.*'accuracy'"):
        watched(train__stop_metric="acuracy")


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_declares_its_main_metric(name):
    kind = tasks.TASKS[name].task()
    assert kind.metrics[kind.main_metric].better in ("higher", "lower")
    assert any(metric.fatal for metric in kind.metrics.values())
    assert not kind.metrics[kind.main_metric].fatal


def test_capabilities_that_are_missing_name_the_tasks_that_have_them():
    with pytest.raises(UserError, match="Sampling is not for classification; it is for generation"):
        tasks.require(tasks.TASKS["classification"].task(), "sample", "Sampling")
    with pytest.raises(UserError, match="Sampling is not for pretraining; it is for generation"):
        tasks.require(dino(), "sample", "Sampling")


def test_samples_do_not_depend_on_their_number():
    task = gan()
    variables = init_variables(task, 0, base.image_spec((8, 8, 1)))
    few, many = (task.sample(variables, KEY, count) for count in (2, 5))
    assert few.dtype == np.uint8
    np.testing.assert_allclose(few, many[:2], atol=1)
    assert not np.array_equal(many[0], many[1])
    with pytest.raises(UserError, match=r"images of \[8, 8, 1\], the data have \[16, 16, 1\]"):
        task.init(KEY, base.image_spec((16, 16, 1)))
