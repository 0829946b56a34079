"""The classification task with the multiclass hinge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import metrics, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import configuration, default_config
from jaxvision.tasks.base import image_spec

KEY = jax.random.key(0)


def configured(**loss):
    config = default_config()
    config.model.name = "mlp"
    config.classification.loss = "hinge"
    config.classification.update(loss)
    return config


def test_the_loss_is_the_hinge_and_predictions_stay_probabilities():
    task = tasks.create(configured(), Facts(("a", "b", "c")))
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (6, 8, 8, 1)), jnp.uint8),
        "label": jnp.asarray([0, 1, 2, 0, 1, 2]),
        "valid": jnp.ones(6, bool),
    }
    variables = task.init(jax.random.key(0), image_spec((8, 8, 1)))
    objective, _ = task.loss(variables["params"], {}, batch, jax.random.key(1))
    scores = np.asarray(task.logits(variables, batch["image"]))
    true = np.take_along_axis(scores, np.asarray(batch["label"])[:, None], 1)
    expected = (np.maximum(scores - true + 1, 0).sum(-1) - 1).mean()
    assert float(objective.value) == pytest.approx(expected, rel=1e-5)
    found = metrics.compute(jax.device_get(task.evaluate(variables, batch, KEY)[0]))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    predicted = task.predict(variables, batch, KEY)["probabilities"]
    np.testing.assert_allclose(predicted.sum(-1), 1, rtol=1e-5)


def test_what_the_hinge_cannot_do_is_refused():
    with pytest.raises(UserError, match=r"label_smoothing is for classification.loss='cross_entr"):
        configuration.validate(configured(label_smoothing=0.1))
    with pytest.raises(UserError, match=r"Unknown loss 'hinj'. Did you mean 'hinge'"):
        tasks.create(configured(loss="hinj"), Facts(("a", "b")))
