"""Any number of classes an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn import metrics as reference

from jaxvision import metrics, tasks
from jaxvision.data.annotations import KINDS, Settings
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.losses import binary_cross_entropy
from jaxvision.runs import Prediction
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.multilabel import report
from jaxvision.tasks.multilabel.task import Multilabel

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NAMES = ("a", "b", "c")


class Linear(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, image, train=False):
        return nn.Dense(self.num_classes)(image.reshape(len(image), -1))


def batch_of(rows=6):
    return {
        "image": jnp.asarray(RNG.integers(0, 256, (rows, 2, 2, 1)), jnp.uint8),
        "labels": jnp.asarray(RNG.random((rows, 3)) < 0.5),
        "valid": jnp.arange(rows) < rows - 1,
    }


def test_binary_cross_entropy_by_hand():
    logits, targets = np.array([[0.0, 2.0], [-30.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.25]])
    p = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(p) * [2.0, 1.0] + (1 - targets) * np.log(1 - p))
    found = binary_cross_entropy(
        jnp.asarray(logits), jnp.asarray(targets), positive_weights=jnp.array([2.0, 1.0])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_average_precision_is_scikit_learn_s():
    scores = RNG.integers(0, 6, (40, 3)).astype(float)  # with ties
    truth = RNG.random((40, 3)) < [0.5, 0.3, 0.0]
    found = metrics.average_precision(scores, truth)
    for index in (0, 1):
        expected = reference.average_precision_score(truth[:, index], scores[:, index])
        assert found[index] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(found[2])  # it never occurs


def test_counts_are_scikit_learn_s():
    found, truth = RNG.random((20, 3)) < 0.5, RNG.random((20, 3)) < 0.5
    mask = np.arange(20) < 15
    counts = metrics.LabelCounts.of(jnp.asarray(found), jnp.asarray(truth), jnp.asarray(mask))
    result = counts.compute("labels")
    for average in ("micro", "macro"):
        expected = reference.f1_score(truth[:15], found[:15], average=average)
        assert result[f"{average}_f1"] == pytest.approx(expected)
    assert result["exact_match"] == (found == truth)[:15].all(1).mean()


def test_loss_predictions_and_scores():
    task = Multilabel(Linear(), NAMES, Inputs((0.5,), (0.25,)), threshold=0.6)
    batch = batch_of()
    variables = task.init(KEY, image_spec((2, 2, 1)))
    logits = np.asarray(task.logits(variables, batch["image"]), np.float64)
    objective, (_, sums) = task.loss(variables["params"], {}, batch, KEY)
    truth = np.asarray(batch["labels"])
    each = np.logaddexp(0, logits) - truth * logits
    assert float(objective.loss) == pytest.approx(each[:5].mean(), rel=1e-5)
    assert int(sums["labels"].images) == 5
    found = task.predict(variables, batch, KEY)
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(found["probabilities"], sigmoid, rtol=1e-5)
    np.testing.assert_array_equal(found["labels"], sigmoid >= 0.6)
    sums, rows = task.evaluate(variables, batch, KEY)
    assert sums["loss"].compute("l")["l"] == pytest.approx(each[:5].mean(), rel=1e-5)
    kept = {key: np.asarray(value)[:5] for key, value in rows.items()}
    result = task.score(kept)
    expected = reference.average_precision_score(truth[:5, 0], logits[:5, 0])
    assert result["ap/a"] == pytest.approx(expected)
    assert result["map"] == pytest.approx(np.nanmean([result[f"ap/{n}"] for n in NAMES]))


def test_mixing_blends_the_sets():
    inputs = Inputs((0.5,), (0.25,), ({"name": "mixup", "alpha": 0.4},), 3)
    batch = inputs.train(batch_of(), KEY)
    assert "labels" not in batch
    shares = np.asarray(batch["label_probs"])
    assert ((shares > 0) & (shares < 1)).any()
    objective, _ = Multilabel(Linear(), NAMES, inputs).loss(
        Linear().init(KEY, jnp.zeros((1, 2, 2, 1)))["params"], {}, batch_of(), KEY
    )
    assert np.isfinite(float(objective.loss))


def test_labels_of_records():
    kind, settings = KINDS["labels"], Settings(num_classes=3)
    row = lambda record: kind.pad(kind.decode(record, "x", settings), "x", settings)  # noqa: E731
    assert row({"labels": [2, 0, 2]})["labels"].tolist() == [True, False, True]
    assert row({"labels": ()})["labels"].tolist() == [False] * 3
    boxes = {"box_label": np.array([1, 1])}
    assert kind.present(boxes)
    assert row(boxes)["labels"].tolist() == [False, True, False]
    with pytest.raises(UserError, match=r"x has label 3, but there are 3 classes \(0 to 2\)"):
        kind.decode({"labels": [3]}, "x", settings)


def test_what_does_not_fit_is_refused():
    config = tasks.default_config("multilabel")
    config.model.name = "mlp"
    with pytest.raises(UserError, match=r"no classes; name them in data\.classes"):
        tasks.create(config, Facts())
    config.multilabel.positive_weights = (1.0, 2.0)
    with pytest.raises(UserError, match="2 values for 3 classes"):
        tasks.create(config, Facts(NAMES))


def test_what_it_shows(tmp_path):
    task = Multilabel(Linear(), NAMES)
    outputs = {
        "probabilities": np.array([[0.9, 0.6, 0.1], [0.1, 0.2, 0.3]]),
        "labels": np.array([[True, True, False], [False] * 3]),
    }
    image = np.zeros((2, 8, 8, 3), np.uint8)
    truth = np.array([[True, True, False], [False, False, True]])
    shown = report.picture(task, {"image": image, "labels": truth}, outputs)
    right, wrong = np.split(shown, 2, axis=1)
    assert (right[..., 0] == right[..., 1]).all()
    assert (wrong[..., 0] > wrong[..., 1] + 50).any()
    one = Prediction(image[0], image[0], {k: v[0] for k, v in outputs.items()}, None)
    assert report.cell(task, one) == "a 90.0%  b 60.0%"
    summary = report.summary(task, one, top=1)["classes"]
    assert [c["name"] for c in summary if c["found"]] == ["a", "b"]
    report.write(task, one, tmp_path, "x")
    assert (tmp_path / "x.png").is_file()
