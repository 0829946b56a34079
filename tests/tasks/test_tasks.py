"""The tasks as pure functions, and making them from a configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import default_config
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.classification import report
from jaxvision.tasks.classification.task import Classification
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.segmentation import report as segmentation_report
from jaxvision.tasks.segmentation.task import Segmentation

KEY = jax.random.key(0)

RNG = np.random.default_rng(0)


def images(count, size):
    return jnp.asarray(RNG.integers(0, 256, (count, size, size, 1)), jnp.uint8)


def test_tasks_say_what_they_need_of_a_record():
    assert tasks.annotations("classification") == ("label",)
    assert tasks.annotations("segmentation") == ("segmentation",)
    with pytest.raises(
        UserError, match=r"Unknown task 'segmentatoin'\. Did you mean 'segmentation'"
    ):
        tasks.annotations("segmentatoin")


def test_class_weights_must_fit_the_classes():
    config = default_config()
    config.model.name = "mlp"
    config.classification.class_weights = (1.0, 2.0)
    assert tasks.create(config, Facts(("a", "b"))).class_weights == (1.0, 2.0)
    with pytest.raises(UserError, match="class_weights has 2 values for 3 classes"):
        tasks.create(config, Facts(("a", "b", "c")))
    with pytest.raises(UserError, match="at least two classes; the data have 1"):
        tasks.create(config, Facts(("a",)))


def test_the_configuration_reaches_task_and_model():
    config = default_config()
    config.model.name, config.model.dtype = "mlp", "bfloat16"
    config.classification.label_smoothing, config.classification.l2 = 0.1, 0.2
    task = tasks.create(config, Facts(("a", "b")))
    assert task.model.dtype == jnp.bfloat16
    assert (task.label_smoothing, task.l1, task.l2) == (0.1, 0.0, 0.2)
    config.data.augment = ({"name": "mixpu"},)
    with pytest.raises(UserError, match="mixup"):
        tasks.create(config, Facts(("a", "b")))


def test_mixup_gives_a_finite_loss_and_counts_the_likelier_label():
    inputs = Inputs((0.5,), (0.25,), ({"name": "mixup", "alpha": 1.0},), 4)
    task = Classification(models.create("mlp", 4, hidden=(8,)), tuple("abcd"), inputs)
    variables = jax.jit(lambda: task.init(jax.random.key(0), image_spec((8, 8, 1))))()
    batch = {
        "image": images(16, 8),
        "label": jnp.asarray(RNG.integers(0, 4, 16), jnp.int32),
        "valid": jnp.ones(16, bool),
    }
    key = jax.random.key(3)
    objective, (state, metrics) = jax.jit(task.loss)(variables["params"], {}, batch, key)
    assert state == {}
    mixed = jax.jit(inputs.train)(batch, jax.random.split(key)[0])
    logits = task.model.apply(variables, mixed["image"], train=False)
    assert mixed["label_probs"].shape == (16, 4)
    assert float(objective.loss) == pytest.approx(
        float(-(mixed["label_probs"] * jax.nn.log_softmax(logits)).sum(-1).mean()), rel=1e-5
    )
    right = (logits.argmax(-1) == mixed["label_probs"].argmax(-1)).sum()
    assert int(metrics["accuracy"].correct) == int(right)
    assert int(metrics["accuracy"].count) == 16


def test_penalties_change_the_loss_but_not_the_metric():
    model = models.create("mlp", 3, hidden=(4,))
    batch = {
        "image": images(4, 4),
        "label": jnp.zeros(4, jnp.int32),
        "valid": jnp.ones(4, bool),
    }
    plain, weighted = (Classification(model, tuple("abc"), l2=l2) for l2 in (0.0, 2.0))
    params = jax.jit(lambda: plain.init(jax.random.key(0), image_spec((4, 4, 1))))()["params"]
    one, _ = jax.jit(plain.loss)(params, {}, batch, jax.random.key(0))
    two, _ = jax.jit(weighted.loss)(params, {}, batch, jax.random.key(0))
    squares = sum(float((p["kernel"] ** 2).sum()) for p in params.values())
    assert float(two.value - one.value) == pytest.approx(squares, rel=1e-5)
    assert float(one.loss) == float(two.loss) == pytest.approx(float(one.value))


def test_labels_are_cropped_to_the_logits_of_a_network_without_padding():
    model = models.create("unet_valid", 2, width=2, depth=1)
    task = Segmentation(model, ("background", "thing"))
    variables = jax.jit(lambda: task.init(jax.random.key(0), image_spec((20, 20, 1))))()
    image = images(2, 20)
    outputs = jax.jit(task.predict)(variables, {"image": image}, KEY)
    assert outputs["segmentation"].shape == (2, 20, 20)
    predicted = jax.jit(task.logits)(variables, image).argmax(-1)
    size = predicted.shape[1]
    assert size < 20
    border = (20 - size) // 2
    # Right within the logits' window, wrong outside: only the window may count.
    truth = np.full((2, 20, 20), 255)
    truth[:] = 1 - int(predicted[0, 0, 0])
    truth[:, border : border + size, border : border + size] = predicted
    batch = {"image": image, "segmentation": jnp.asarray(truth), "valid": jnp.array([True, False])}
    found = jax.jit(task.evaluate)(variables, batch, KEY)[0]
    assert int(found["confusion"].counts.sum()) == size**2  # and one image of two
    assert found["confusion"].compute("")["pixel_accuracy"] == 1.0
    assert float(found["loss"].weight) == size**2
    objective, (_, metrics) = jax.jit(task.loss)(
        variables["params"],
        {k: v for k, v in variables.items() if k != "params"},
        batch,
        jax.random.key(0),
    )
    assert np.isfinite(float(objective.value))
    assert float(metrics["pixel_accuracy"].weight) == size**2
    shown = segmentation_report.picture(task, batch, outputs)
    assert shown.dtype == np.uint8
    assert shown.shape[2] == 3


def test_a_batch_without_the_annotation_is_refused():
    task = Classification(models.create("mlp", 3), tuple("abc"))
    with pytest.raises(UserError, match="no labels"):
        task.loss({}, {}, {"image": images(1, 4)}, jax.random.key(0))


def test_visualize_marks_what_is_wrong():
    task = Classification(models.create("mlp", 2), ("cat", "dog"))
    outputs = {"probabilities": np.array([[0.9, 0.1], [0.8, 0.2]])}
    image = np.full((2, 8, 8, 1), 255, np.uint8)
    picture = report.picture(task, {"image": image, "label": np.array([0, 1])}, outputs)
    assert picture.shape == (186, 336, 3)
    coloured = (picture.max(-1) - picture.min(-1) > 50).any(0)
    assert not coloured[:168].any()
    assert coloured[168:].any()
    assert report.picture(task, {"image": image}, outputs).shape == (186, 336, 3)
