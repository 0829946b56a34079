"""Auxiliary heads, distillation tokens and teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxvision import models, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import configuration, default_config
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.classification.task import Classification, Teacher

RNG = np.random.default_rng(0)
LOGITS = {name: RNG.normal(size=(6, 4)).astype(np.float32) for name in ("a", "b", "c")}
LABELS = jnp.asarray(RNG.integers(0, 4, 6), jnp.int32)


class Constant(nn.Module):
    """Puts out fixed arrays, whatever the image, times a parameter that is one."""

    outputs: dict

    @nn.compact
    def __call__(self, image, train=False):
        one = self.param("one", nn.initializers.ones, ())
        outputs = {name: one * value for name, value in self.outputs.items()}
        return outputs if train and len(outputs) > 1 else outputs["logits"]


def loss_of(outputs, **options):
    task = Classification(Constant(outputs), tuple("abcd"), **options)
    variables = task.init(jax.random.key(0), image_spec((2, 2, 1)))
    params = variables.pop("params")
    batch = {
        "image": jnp.zeros((6, 2, 2, 1), jnp.uint8),
        "label": LABELS,
        "valid": jnp.array([True] * 5 + [False]),
    }
    objective, (state, metrics) = task.loss(params, variables, batch, jax.random.key(1))
    return float(objective.value), state, metrics


def ce(logits, labels=LABELS):
    each = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), labels)
    return float(each[:5].mean())


def test_auxiliary_losses_are_weighted():
    outputs = {"logits": LOGITS["a"], "aux1": LOGITS["b"], "aux2": LOGITS["c"]}
    loss, _, metrics = loss_of(outputs, auxiliary_weight=0.4)
    expected = ce(LOGITS["a"]) + 0.4 * (ce(LOGITS["b"]) + ce(LOGITS["c"]))
    assert loss == pytest.approx(expected, rel=1e-6)
    right = (LOGITS["a"].argmax(-1) == np.asarray(LABELS))[:5].sum()
    assert float(metrics["accuracy"].correct) == right


def test_without_a_teacher_both_heads_learn_the_labels_together():
    loss, _, _ = loss_of({"logits": LOGITS["a"], "distilled": LOGITS["b"]})
    assert loss == pytest.approx(ce((LOGITS["a"] + LOGITS["b"]) / 2), rel=1e-6)


def test_hard_distillation():
    # Touvron et al. 2020, equation 3: half from the labels, half from the teacher's classes.
    teacher = Teacher(Constant({"logits": LOGITS["c"]}), "hard", 0.5)
    loss, state, _ = loss_of({"logits": LOGITS["a"], "distilled": LOGITS["b"]}, teacher=teacher)
    taught = ce(LOGITS["b"], jnp.asarray(LOGITS["c"].argmax(-1)))
    assert loss == pytest.approx((ce(LOGITS["a"]) + taught) / 2, rel=1e-6)
    assert float(state["teacher"]["params"]["one"]) == 1  # it stays in the state


def test_soft_distillation_of_a_network_with_one_head():
    # Hinton et al. 2015: Kullback-Leibler divergence at a temperature, times its square.
    teacher = Teacher(Constant({"logits": LOGITS["c"]}), "soft", 0.3, temperature=3.0)
    loss, _, _ = loss_of({"logits": LOGITS["a"]}, teacher=teacher)
    p, q = (np.asarray(jax.nn.log_softmax(LOGITS[name] / 3))[:5] for name in ("c", "a"))
    divergence = 9 * (np.exp(p) * (p - q)).sum(-1).mean()
    assert loss == pytest.approx(0.7 * ce(LOGITS["a"]) + 0.3 * divergence, rel=1e-5)


def test_the_teacher_gets_no_gradient_and_the_student_does():
    teacher = Teacher(Constant({"logits": LOGITS["c"]}), "soft", 0.9)
    task = Classification(Constant({"logits": LOGITS["a"]}), tuple("abcd"), teacher=teacher)
    variables = task.init(jax.random.key(0), image_spec((2, 2, 1)))
    params = variables.pop("params")
    batch = {
        "image": jnp.zeros((6, 2, 2, 1), jnp.uint8),
        "label": LABELS,
        "valid": jnp.ones(6, bool),
    }

    def loss(params, model_state):
        return task.loss(params, model_state, batch, jax.random.key(1))[0].value

    student, taught = jax.grad(loss, (0, 1))(params, variables)
    assert float(student["one"]) != 0
    assert float(taught["teacher"]["params"]["one"]) == 0


def test_configured_teachers():
    config = default_config()
    config.model.name = "vit_mnist"
    config.classification.distillation.model = "mlp"
    with pytest.raises(UserError, match=r"needs classification\.distillation\.weights"):
        configuration.validate(config)
    config.classification.distillation.weights = "teacher.safetensors"
    config.classification.distillation.options = {"hidden": (5,)}
    task = tasks.create(config, Facts(("a", "b")))
    assert task.teacher.model == models.create("mlp", 2, hidden=(5,))
