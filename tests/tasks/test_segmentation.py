"""What the task adds up, what it evaluates, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import losses, pretrained, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.segmentation.task import Segmentation

KEY = jax.random.key(0)

NAMES = ("a", "b", "c")
RNG = np.random.default_rng(0)
BATCH = {
    "image": jnp.asarray(RNG.integers(0, 256, (2, 8, 10, 3), np.uint8)),
    "segmentation": jnp.asarray(RNG.choice([0, 1, 2, 255], (2, 8, 10)).astype(np.uint8)),
    "valid": jnp.ones(2, bool),
}
COUNTED = BATCH["segmentation"] < 3
TARGETS = jnp.where(COUNTED, BATCH["segmentation"], 0).astype(jnp.int32)


class Pixelwise(nn.Module):
    """One linear layer; in training it has a second head that says nothing."""

    num_classes: int = 3
    auxiliary: bool = False

    @nn.compact
    def __call__(self, image, train=False):
        logits = nn.Dense(self.num_classes)(image)
        if train and self.auxiliary:
            return {"logits": logits, "aux": jnp.zeros_like(logits)}
        return logits


def loss_of(**options):
    task = Segmentation(Pixelwise(auxiliary=options.pop("auxiliary", False)), NAMES, **options)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    objective, _ = task.loss(variables["params"], {}, BATCH, jax.random.key(1))
    return float(objective.value), task.logits(variables, BATCH["image"])


def cross_entropy(logits):
    return float(losses.masked_mean(*losses.cross_entropy(logits, TARGETS), COUNTED))


def test_of_more_classes_than_255_the_void_is_65535():
    names = tuple(map(str, range(300)))
    task = Segmentation(Pixelwise(300), names)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    truth = np.full((2, 8, 10), 65535, np.int32)
    truth[0, :2], truth[1, 3] = 255, 299
    batch = {**BATCH, "segmentation": jnp.asarray(truth), "valid": jnp.array([True, False])}
    sums, _ = jax.jit(task.evaluate)(variables, batch, KEY)
    counts = np.asarray(sums["confusion"].counts)
    assert counts.sum() == counts[255].sum() == 20
    assert np.asarray(sums["confusion"].on_void).sum() == 60


def test_one_output_is_the_logit_of_the_second_class():
    """Binary cross-entropy with logits, and 0.5 of the sigmoid as the threshold."""
    task = Segmentation(Pixelwise(1), ("background", "thing"), one_output=True)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    truth = jnp.where(BATCH["segmentation"] < 3, BATCH["segmentation"] % 2, 255)
    batch = {**BATCH, "segmentation": truth}
    objective, _ = task.loss(variables["params"], {}, batch, jax.random.key(1))
    image = task.inputs.evaluate(batch["image"])
    logit = np.asarray(task.model.apply(variables, image), np.float64)[..., 0]
    seen = np.asarray(truth) < 255
    each = np.logaddexp(0, logit) - np.asarray(truth) * logit
    assert float(objective.loss) == pytest.approx(each[seen].mean(), rel=1e-5)
    found = task.predict(variables, batch, jax.random.key(0))
    np.testing.assert_array_equal(found["segmentation"], (logit > 0).astype(int))
    sigmoid = 1 / (1 + np.exp(-np.abs(logit)))
    np.testing.assert_allclose(found["probability"], sigmoid, rtol=1e-5)
    confusion = task.evaluate(variables, batch, jax.random.key(0))[0]["confusion"]
    assert confusion.compute("c").keys() >= {"miou", "iou/thing", "iou/background"}


def test_one_output_is_configured_for_two_classes():
    config = tasks.default_config("segmentation")
    config.model.name, config.segmentation.one_output = "unet_small", True
    config.data.classes = ("background", "lesion")
    assert tasks.create(config, Facts(("background", "lesion"))).model.num_classes == 1
    with pytest.raises(UserError, match="one_output is for two classes; the data have 3"):
        tasks.create(config, Facts(("a", "b", "c")))
    with pytest.raises(UserError, match=r"as in data.classes=\('background', 'lesion'\)"):
        tasks.create(config, Facts(("lesion",)))


def test_terms_add_up():
    value, logits = loss_of(criterion="cross_entropy+dice+lovasz")
    expected = cross_entropy(logits) + sum(
        float(region(logits, TARGETS, COUNTED)) for region in (losses.dice, losses.lovasz)
    )
    assert value == pytest.approx(expected, rel=1e-5)


def test_options_reach_their_term():
    value, logits = loss_of(criterion="focal", loss_options={"focal": {"gamma": 0.0}})
    assert value == pytest.approx(cross_entropy(logits), rel=1e-4)


def test_auxiliary_heads_count_with_their_weight():
    value, logits = loss_of(auxiliary=True, auxiliary_weight=0.25)
    assert value == pytest.approx(cross_entropy(logits) + 0.25 * np.log(3), rel=1e-5)


def test_hard_pixels_alone():
    value, logits = loss_of(hard_share=0.1, hard_threshold=1e-6)
    nll = np.asarray(losses.cross_entropy(logits, TARGETS)[0])[np.asarray(COUNTED)]
    worst = np.sort(nll)[::-1][: int(np.ceil(0.1 * nll.size))]
    assert value == pytest.approx(worst.mean(), rel=1e-5)


def test_the_class_that_stands_for_void_is_not_evaluated():
    task = Segmentation(Pixelwise(), NAMES, void_class="c", void_counts=True)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    found = task.evaluate(variables, BATCH, KEY)[0]["confusion"]
    assert found.counts.shape == (2, 2)
    guess = task.logits(variables, BATCH["image"]).argmax(-1)
    truth = np.asarray(BATCH["segmentation"])
    assert found.on_void.sum() == ((truth >= 2) & (guess < 2)).sum()
    assert found.to_void.sum() == ((truth < 2) & (guess == 2)).sum()


def test_rows_that_fill_the_batch_hold_no_pixel():
    task = Segmentation(Pixelwise(), NAMES, void_counts=True, boundary=0.02)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    half = {key: value[:1] for key, value in BATCH.items()}
    filled = BATCH | {"valid": jnp.array([True, False])}
    one, padded = (task.evaluate(variables, batch, KEY)[0] for batch in (half, filled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, padded)


def test_predictions_cover_the_image_of_a_network_without_padding():
    class Valid(nn.Module):
        @nn.compact
        def __call__(self, image, train=False):
            return nn.Conv(3, (3, 5), padding="VALID")(image)

    task = Segmentation(Valid(), NAMES)
    variables = task.init(jax.random.key(0), image_spec((8, 10, 3)))
    assert task.logits(variables, BATCH["image"]).shape == (2, 6, 6, 3)
    found = task.predict(variables, BATCH, KEY)
    assert found["segmentation"].shape == (2, 8, 10)
    inner = jax.nn.softmax(task.logits(variables, BATCH["image"]))
    np.testing.assert_array_equal(found["segmentation"][:, 1:-1, 2:-2], inner.argmax(-1))
    np.testing.assert_allclose(found["probability"][:, 1:-1, 2:-2], inner.max(-1), rtol=1e-5)


def configured(**values):
    config = tasks.default_config("segmentation")
    config.model.name = "unet_small"
    for path, value in values.items():
        configuration.set_key(config, path.replace("__", "."), value)
    return config


def created(values):
    config = configured(**values)
    configuration.validate(config)
    return tasks.create(config, Facts(NAMES))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"segmentation__loss": "cross_entropy+dise"}, "segmentation.loss .*'dise'.*'dice'"),
        ({"segmentation__loss_options": {"dice": {}}}, "loss in segmentation.loss_options 'dice'"),
        (
            {"segmentation__loss": "dice", "segmentation__loss_options": {"dice": {"smoth": 1.0}}},
            "option of loss 'dice' 'smoth'.*'smooth'",
        ),
        (
            {"segmentation__void_class": "a"},
            "segmentation.void_class='a' is not the last class, 'c'",
        ),
        ({"segmentation__scales": (0.0,)}, r"segmentation.scales. is a number above 0"),
        ({"segmentation__distillation": "resnet18"}, "Unknown config key"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        created(values)


def test_an_encoder_starts_from_weights_of_its_own(tmp_path):
    from jaxvision import models
    from jaxvision.interop import torch_weights

    encoder = models.create("resnet18", 10)
    image = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda: encoder.init(jax.random.key(5), image))()
    torch_weights.save(tmp_path / "resnet18.safetensors", variables)
    network = models.create("upernet_resnet18", 3, width=4)
    fresh = dict(jax.jit(lambda: network.init(jax.random.key(6), image))())
    weights = str(tmp_path / "resnet18.safetensors")
    assert models.encoder_of("upernet_resnet18", {"width": 4}) == ("resnet18", "backbone")
    read = pretrained.read(weights, "resnet18")
    filled = pretrained.fill_encoder("resnet18", "backbone", read, fresh)
    for kind in ("params", "batch_stats"):
        inner = {k: v for k, v in variables[kind].items() if k != "fc"}
        jax.tree.map(np.testing.assert_array_equal, dict(filled[kind]["backbone"]), dict(inner))
        rest = [k for k in fresh[kind] if k != "backbone"]
        assert rest
        for name in rest:
            jax.tree.map(np.testing.assert_array_equal, filled[kind][name], fresh[kind][name])
    with pytest.raises(UserError, match="Unknown model with an encoder 'segnet'"):
        models.encoder_of("segnet", {})
