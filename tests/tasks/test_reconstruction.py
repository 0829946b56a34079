"""Learning to say what was hidden: losses, what is asked, evaluation, parts, guards."""

import copy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from safetensors.numpy import save_file

from jaxvision import models, runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.layers.patches import from_patches, to_patches
from jaxvision.losses.reconstruction import (
    hidden_patch_error,
    patch_statistics,
    weighted_pixel_error,
)
from jaxvision.metrics import compute
from jaxvision.tasks import base, configuration
from jaxvision.tasks.pretraining import report
from jaxvision.tasks.pretraining.beit import COLLECTION
from jaxvision.tasks.pretraining.corrupted import corrupt
from jaxvision.tasks.pretraining.reconstruction import Question
from jaxvision.tasks.pretraining.task import METHODS, Pretraining
from jaxvision.train import run, weights
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ROOT = Path(__file__).parents[2]


class Brightness(nn.Module):
    """The brightness of each 2x2 pixels in so many steps; nothing should train `factor`."""

    codes: int = 4

    def setup(self):
        self.factor = self.param("factor", nn.initializers.ones, ())

    def __call__(self, image, train=False):
        return self.tokens(image)

    def tokens(self, image):
        mean = nn.avg_pool(image, (2, 2), (2, 2)).mean(-1) * self.factor
        return jnp.minimum(mean * self.codes, self.codes - 1).astype(jnp.int32)

    def pictures(self, tokens):
        return jnp.repeat(jnp.repeat((tokens[..., None] + 0.5) / self.codes, 2, 1), 2, 2)


@pytest.fixture(autouse=True, scope="module")
def tokenizer():
    """A tokenizer that only these tests know."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_REGISTRY", copy.deepcopy(models._REGISTRY))
        models.register("brightness_tokenizer", input_shape=(8, 8, 1))(Brightness)
        yield


VIT = {"patch_size": 2, "width": 16, "depth": 1, "num_heads": 2}
NETWORKS = {
    "mae": (
        "mae_vit_base_patch16_224",
        {"encoder_options": VIT, "width": 16, "depth": 1, "num_heads": 2},
    ),
    "beit": ("beit_base_patch16_224_mim", {"encoder_options": VIT, "codes": 4}),
    "denoising": ("denoising_resnet18", {"encoder": "resnet8_cifar", "width": 4}),
    "context": ("context_vit_small_patch16_224", {"encoder_options": VIT}),
}
OWN = {
    "beit": {
        "hidden_patches": 6,
        "least_block": 2,
        "tokenizer.network": "brightness_tokenizer",
    },
    "context": {"context_overlap": 1},
}


def configured(method, **keys):
    config = tasks.default_config("pretraining")
    config.model.name, options = NETWORKS[method]
    config.model.options = options
    config.data.channels = 1
    config.data.mean, config.data.std = (0.3,), (0.4,)
    for key, value in {**OWN.get(method, {}), **keys}.items():
        configuration.set_key(config, f"pretraining.{key.replace('__', '.')}", value)
    configuration.validate(config)
    return config


def task_of(method, **keys):
    return tasks.create(configured(method, **keys), Facts(("a", "b")))


def variables_of(task):
    return jax.jit(lambda: init_variables(task, 0, base.image_spec((8, 8, 1))))()


def batch_of(count=6, valid=None):
    images = jnp.asarray(RNG.integers(0, 256, (count, 8, 8, 1)), jnp.uint8)
    label = jnp.arange(count, dtype=jnp.int32) % 2
    return {"image": images, "label": label, "valid": jnp.arange(count) < (valid or count)}


# -- losses ----------------------------------------------------------------------------------------


def test_patches_are_read_row_by_row_with_their_channels_together():
    image = jnp.arange(2 * 4 * 6 * 2).reshape(2, 4, 6, 2).astype(jnp.float32)
    patches = to_patches(image, 2)
    assert patches.shape == (2, 6, 8)
    np.testing.assert_array_equal(patches[0, 1], [4, 5, 6, 7, 16, 17, 18, 19])
    np.testing.assert_array_equal(patches[1, 3, :4], image[1, 2, :2].ravel())
    np.testing.assert_array_equal(from_patches(patches, (2, 3), 2), image)


def test_the_error_of_hidden_patches_of_valid_images():
    wanted = jnp.asarray([[[1.0, 3.0], [2.0, 2.0]], [[0.0, 0.0], [9.0, 9.0]]])
    found = jnp.asarray([[[2.0, 5.0], [7.0, 7.0]], [[1.0, 0.0], [0.0, 0.0]]])
    hidden = jnp.asarray([[True, False], [True, True]])
    ratio = hidden_patch_error(found, wanted, hidden, jnp.asarray([True, True]))
    assert ratio.weight == 3
    np.testing.assert_allclose(ratio.total, (1 + 4) / 2 + 0.5 + 81)
    ratio = hidden_patch_error(found, wanted, hidden, jnp.asarray([True, False]))
    np.testing.assert_allclose(ratio.value, 2.5)
    mean, spread = patch_statistics(wanted[:1])
    np.testing.assert_allclose(mean[0, :, 0], [2, 2])
    np.testing.assert_allclose(spread[0, :, 0], [np.sqrt(2 + 1e-6), 1e-3], 1e-5)


def test_the_border_of_a_region_counts_more_and_the_rest_not():
    wanted = jnp.zeros((1, 1, 3, 2))
    found = jnp.asarray([[[[1.0, 3.0], [2.0, 0.0], [9.0, 9.0]]]])
    weights = jnp.asarray([[[1.0, 10.0, 0.0]]])
    ratio = weighted_pixel_error(found, wanted, weights, jnp.asarray([True]))
    assert ratio.weight == 2
    np.testing.assert_allclose(ratio.total, 5 + 10 * 2)
    assert weighted_pixel_error(found, wanted, weights, jnp.asarray([False])).weight == 0


def test_corruptions():
    pixels = jnp.full((4, 16, 16, 2), 0.6)
    masked = np.asarray(corrupt(pixels, KEY, "masking", 0.25))
    assert set(np.unique(masked)) == {0.0, np.float32(0.6)}
    assert np.mean(masked == 0) == pytest.approx(0.25, abs=0.04)
    extreme = np.asarray(corrupt(pixels, KEY, "salt_and_pepper", 0.4))
    for value, share in ((0.0, 0.2), (1.0, 0.2), (np.float32(0.6), 0.6)):
        assert np.mean(extreme == value) == pytest.approx(share, abs=0.04)
    noisy = np.asarray(corrupt(pixels, KEY, "gaussian", 0.1)) - 0.6
    assert noisy.mean() == pytest.approx(0, abs=0.01)
    assert noisy.std() == pytest.approx(0.1, rel=0.1)


# -- what is asked, and what it costs --------------------------------------------------------------


def test_mae_hides_three_quarters_and_learns_standardised_pixels():
    task = task_of("mae")
    image = task.inputs.evaluate(batch_of()["image"])
    question = task.ask(image, KEY)
    assert question.inputs["kept"].shape == (6, 4)
    np.testing.assert_array_equal(question.hidden.sum(1), 12)
    assert len(np.unique(np.asarray(question.hidden), axis=0)) > 1
    valid = jnp.ones(6, bool)
    mean, _ = task.cost(jnp.zeros((6, 16, 4)), image, question, valid, {})
    # The squares of d standardised values add up to d - 1.
    np.testing.assert_allclose(mean.value, 3 / 4, rtol=1e-3)
    patches = to_patches(image, 2)
    average, spread = patch_statistics(patches)
    answer = (patches - average) / spread + 0.1 / spread
    _, sums = task.cost(answer, image, question, valid, {})
    # Off by 0.1 in normalised units are 0.04 in those of pixels.
    assert compute(sums)["psnr"] == pytest.approx(-20 * np.log10(0.04), rel=1e-4)
    plain = task_of("mae", normalized_pixels=False)
    mean, sums = plain.cost(patches + 0.1, image, question, valid, {})
    np.testing.assert_allclose(mean.value, 0.01, rtol=1e-4)
    assert compute(sums)["psnr"] == pytest.approx(-20 * np.log10(0.04), rel=1e-4)
    shown = task.shown(answer, image, question, {})
    hidden = from_patches(jnp.repeat(question.hidden[..., None], 4, -1), (4, 4), 2)
    np.testing.assert_array_equal(shown["hidden"], jnp.where(hidden, 0, image))
    expected = jnp.where(hidden, image + 0.1, image)
    np.testing.assert_allclose(shown["reconstruction"], expected, atol=1e-5)


def test_beit_learns_the_tokens_of_hidden_patches_alone():
    task, batch = task_of("beit"), batch_of()
    variables = variables_of(task)
    image = task.inputs.evaluate(batch["image"])
    question = task.ask(image, KEY)
    count = np.asarray(question.hidden.sum(1))
    assert question.hidden.shape == (6, 16)
    assert count.max() <= 6
    assert count.min() >= 1
    pixels = np.asarray(batch["image"], np.float64).reshape(6, 4, 2, 4, 2).mean((2, 4)) / 255
    tokens = np.minimum(pixels * 4, 3).astype(int).reshape(6, 16)
    answer = 5.0 * jax.nn.one_hot(jnp.asarray(tokens), 4)
    answer = jnp.where(question.hidden[..., None], answer, jnp.nan)
    mean, sums = task.cost(answer, image, question, batch["valid"], variables)
    np.testing.assert_allclose(mean.value, np.log(1 + 3 * np.exp(-5.0)), rtol=1e-4)
    assert mean.weight == count.sum()
    assert compute(sums)["token_accuracy"] == 1
    shown = task.shown(answer, image, question, variables)
    expected = (np.repeat(np.repeat(tokens.reshape(6, 4, 4), 2, 1), 2, 2) + 0.5) / 4
    found = task.inputs.pixels(shown["reconstruction"])[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_context_cuts_out_and_weighs_the_border():
    image = task_of("context").inputs.evaluate(batch_of()["image"])
    question = task_of("context").ask(image, KEY)
    np.testing.assert_array_equal(question.hidden.sum((1, 2)), 16)
    np.testing.assert_array_equal(question.image[:, 2:6, 2:6], 0)
    np.testing.assert_array_equal(question.image[:, :2], image[:, :2])
    weights = np.asarray(question.weights)
    assert {value: (weights[0] == value).sum() for value in (0, 1, 10)} == {0: 28, 1: 16, 10: 20}
    squares = task_of("context", context_squares=3, context_side=0.25).ask(image, KEY)
    count = np.asarray(squares.hidden.sum((1, 2)))
    assert 4 <= count.min() <= count.max() <= 12
    assert len(np.unique(np.asarray(squares.hidden), axis=0)) > 1
    assert ((np.asarray(squares.weights) == 1) == np.asarray(squares.hidden)).all()


def test_denoising_sees_noise_and_pays_for_all_pixels():
    task = task_of("denoising", corruption="gaussian", corruption_amount=0.2)
    image = task.inputs.evaluate(batch_of()["image"])
    question = task.ask(image, KEY)
    assert np.std(question.image - image) == pytest.approx(0.2 / 0.4, rel=0.15)
    mean, sums = task.cost(image + 1, image, question, jnp.ones(6, bool), {})
    np.testing.assert_allclose(mean.value, 1, rtol=1e-5)
    assert compute(sums)["psnr"] == pytest.approx(-20 * np.log10(0.4), rel=1e-4)


# -- all methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NETWORKS)
def test_it_learns_and_is_measured(method):
    task = task_of(method)
    variables = variables_of(task)
    groups = {"main": Group(optax.adam(3e-3))}
    state, curve = init_state(variables, groups, ema=True), []
    digits = np.load(ROOT / "jaxvision/data/assets/digits.npz")["image"][:256, :, :, None]
    images = jnp.asarray(digits * 15, jnp.uint8)
    step = jax.jit(make_train_step(task, groups, seed=0, ema=0.9))
    for number in range(30):
        rows = jnp.asarray(np.random.default_rng(number).integers(0, 256, 32))
        state, sums = step(state, {"image": images[rows], "valid": jnp.ones(32, bool)})
        curve.append(compute(jax.device_get(sums))["loss"])
    assert np.mean(curve[-5:]) < 0.95 * np.mean(curve[:5])
    for kind in task.APART:
        jax.tree.map(np.testing.assert_array_equal, state.model_state[kind], variables[kind])
        jax.tree.map(np.testing.assert_array_equal, state.ema[kind], variables[kind])

    evaluate = jax.jit(task.evaluate)
    batch = {"image": images[:6], "label": jnp.arange(6) % 2, "valid": jnp.arange(6) < 4}
    trained = state.variables()
    sums, rows = evaluate(trained, batch, KEY)
    other = {**batch, "image": batch["image"].at[4:].set(7)}
    again, _ = evaluate(trained, other, KEY)
    found = compute(jax.device_get(sums))
    assert found == compute(jax.device_get(again))
    scores = task.score({k: np.asarray(v) for k, v in rows.items()})
    assert scores.keys() == set(task.scores())
    assert (found | scores).keys() <= task.metrics.keys() == Pretraining.metrics.keys()
    assert found["loss"] < np.mean(curve[:3])

    shown = jax.jit(task.pictured)(trained, batch, KEY)
    for name in ("hidden", "reconstruction"):
        assert shown[name].dtype == jnp.uint8
        assert shown[name].shape == (6, 8, 8, 1)
    drawn = report.picture(task, jax.device_get(batch), jax.device_get(shown))
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] > drawn.shape[0] > 80
    assert (drawn.shape[1] // 82) % 3 == 0
    parts = task.parts(trained)
    assert parts.keys() == {"encoder", "backbone"}
    _, variables = task.looked_at(trained)
    assert jax.tree.structure(variables) == jax.tree.structure(parts["encoder"])
    assert not set(task.of_network(trained)) & set(task.APART)


def test_features_are_the_class_token_or_the_mean():
    token, mean = task_of("mae"), task_of("mae", pool="mean")
    variables, image = variables_of(token), batch_of()["image"]
    seen = token.inputs.evaluate(image)
    tokens = token.model.apply(variables, seen, method="encode")
    assert tokens.shape == (6, 17, 16)
    np.testing.assert_allclose(token.features(variables, image), tokens[:, 0], atol=1e-6)
    expected = tokens[:, 1:].mean(1)
    np.testing.assert_allclose(mean.features(variables, image), expected, atol=1e-6)
    maps = task_of("denoising", pool="token")
    with pytest.raises(UserError, match=r"no class token: set --config\.pretraining\.pool=mean"):
        jax.eval_shape(maps.features, jax.eval_shape(lambda: variables_of(maps)), image)


def test_an_encoder_that_sees_all_patches_says_the_same_in_any_order():
    task = task_of("mae")
    variables, image = variables_of(task), task.inputs.evaluate(batch_of()["image"])
    apply = jax.jit(lambda kept: task.model.apply(variables, image, kept, train=False))
    order = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.arange(16), (6, 1)), axis=1))
    whole = task.model.apply(variables, image, train=False)
    np.testing.assert_allclose(apply(order), whole, atol=1e-5)


# -- runs ------------------------------------------------------------------------------------------


def quiet(config):
    for key, value in {
        "eval.pictures": 4, "log.tensorboard": False, "train.batch_size": 32,
        "data.train": "train[:64]", "data.test": "test[:32]", "train.duration": 2,
        "eval.every": "never", "checkpoint.every": "never",
    }.items():  # fmt: skip
        configuration.set_key(config, key, value)
    return config


REDUCED = {"patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
VARIANTS = {
    "mae": {"width": 16, "depth": 1, "num_heads": 2, "encoder_options": REDUCED},
    "beit": {"codes": 4, "encoder_options": REDUCED},
    "denoising": {"encoder_options": REDUCED},
    "context": {"encoder_options": REDUCED},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("file", ["cifar10", "shapes", "imagenet"])
def test_every_recipe_trains_in_a_reduced_form(file, variant, tmp_path):
    """ImageNet's by one step on the device alone, the others as runs on built-in data."""
    config = configuration.load(str(ROOT / f"configs/pretraining/{file}.py:{variant}"))
    options = dict(VARIANTS[variant])
    if file == "imagenet" and variant in ("denoising", "context"):
        options = {"encoder": "resnet8_cifar", "width": 4}
    config.model.options, config.model.dtype = options, "float32"
    if variant == "beit":
        own = config.pretraining
        own.hidden_patches, own.least_block = 6, 2
        own.tokenizer.network, own.tokenizer.weights = "brightness_tokenizer", ""
        own.tokenizer.options, own.tokenizer.size = {}, 8
    if file != "shapes":
        task = tasks.create(config, Facts(("a", "b")))
        batch = {"image": jnp.zeros((2, 32, 32, 3), jnp.uint8), "valid": jnp.ones(2, bool)}
        variables = jax.eval_shape(lambda: init_variables(task, 0, base.image_spec((32, 32, 3))))
        rest = {kind: tree for kind, tree in variables.items() if kind != "params"}
        objective, _ = jax.eval_shape(task.loss, variables["params"], rest, batch, KEY)
        assert list(objective.means) == ["reconstruction"]
        return
    crop = {"name": "random_resized_crop", "size": 32, "scale": (0.5, 1.0)}
    config.data.train_transforms = (crop,)
    config.data.options = {"size": 32, "train": 32, "test": 16}
    config.train.batch_size, config.train.duration = 16, 2
    config.eval.every, config.schedule.warmup, config.eval.pictures = 2, 0, 4
    config.log.tensorboard = False
    result = run(config, tmp_path / "run")
    assert np.isfinite(result["loss"])
    assert (tmp_path / "run" / "reconstructions.png").is_file()


def test_a_classifier_starts_from_the_encoder_of_a_run(tmp_path):
    result = run(quiet(configured("mae")), tmp_path / "mae")
    assert 0 <= result["knn_accuracy"] <= 1
    assert np.isfinite(result["loss"])
    config = quiet(tasks.default_config("classification"))
    config.data.channels = 1
    config.model.name, config.model.options = "vit_base_patch16_224", VIT
    config.model.weights = f"run:{tmp_path / 'mae'}"
    config.optimizer.freeze = ("^blocks_0/",)
    config.eval.pictures = 0
    run(config, tmp_path / "classes")
    ours = runs.open(tmp_path / "classes").variables["params"]
    theirs = runs.open(tmp_path / "mae").variables["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, ours["blocks_0"], dict(theirs["blocks_0"]))
    for part in ("", "#encoder", "#backbone"):
        found = weights.read(f"run:{tmp_path / 'mae'}{part}", "vit_base_patch16_224").state
        assert {"pos_embed", "norm.weight", "blocks.0.attn.qkv.bias"} < found.keys()
        assert not [name for name in found if name.startswith(("decoder", "encoder"))]


def test_a_tokenizer_is_stored_with_its_run(tmp_path):
    """And comes from a file; the network's weights may come from another."""
    save_file({"factor": np.full((), 0.5, np.float32)}, tmp_path / "tokenizer.safetensors")
    config = quiet(configured("beit"))
    assert "has random weights" in task_of("beit").notes(config)[0]
    config.pretraining.tokenizer.weights = str(tmp_path / "tokenizer.safetensors")
    run(config, tmp_path / "first")
    (tmp_path / "tokenizer.safetensors").unlink()
    opened = runs.open(tmp_path / "first")
    assert opened.variables[COLLECTION]["params"]["factor"] == 0.5
    again, _ = opened.evaluate()
    assert 0 <= again["token_accuracy"] <= 1
    own = opened.task.of_network(opened.variables)
    save_file(torch_weights.to_state_dict(own), tmp_path / "network.safetensors")
    config = quiet(configured("beit"))
    config.model.weights = str(tmp_path / "network.safetensors")
    config.optimizer.learning_rate = 1e-12
    config.eval.pictures = 0
    run(config, tmp_path / "second")
    found = runs.open(tmp_path / "second").variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, own["params"])


# -- guards ----------------------------------------------------------------------------------------


def test_every_method_of_a_network_is_known():
    names = [name for name in models.names() if models.variant(name).role == "pretraining"]
    found = {models.variant(name).module.METHOD for name in names}
    assert {"mae", "beit", "denoising", "context"} <= found <= set(METHODS)


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("beit", {"tokenizer__network": ""}, "pretraining.tokenizer.network names the network"),
        ("beit", {"tokenizer__network": "resnet18"}, "gives no tokens.*brightness_tokenizer"),
        (
            "beit",
            {"tokenizer__options": {"codes": 5}},
            r"has 5 tokens, .* one of 4: set --config\.model\.options\.codes=5",
        ),
        ("context", {"context_side": 1.0}, "context_side' is a number above 0 and below 1"),
        ("denoising", {"corruption_amount": 1.5}, "part of the values, below 1"),
        ("denoising", {"corruption": "mask"}, "Did you mean 'masking'"),
    ],
)
def test_settings_that_do_not_fit(method, keys, message):
    with pytest.raises(UserError, match=message):
        task_of(method, **keys)


def test_networks_and_images_that_do_not_fit():
    config = configured("mae")
    config.model.options = {"encoder": "beit_base_patch16_224"}
    with pytest.raises(UserError, match="told which patches to see, as vit_small_patch16_224; Be"):
        tasks.create(config, Facts())
    config = configured("beit")
    config.model.options = {"encoder": "vit_tiny_patch16_224", "encoder_options": VIT, "codes": 4}
    with pytest.raises(UserError, match="as beit_base_patch16_224; in VisionTransformer none can"):
        tasks.create(config, Facts())
    image = jnp.zeros((2, 8, 8, 1))
    with pytest.raises(UserError, match=r"mask_ratio=0\.99 leaves none of 16 patches"):
        task_of("mae", mask_ratio=0.99).ask(image, KEY)
    with pytest.raises(UserError, match="hidden_patches=75, but images have 4x4 patches"):
        task_of("beit", hidden_patches=75).ask(image, KEY)
    task = task_of("beit", tokenizer__size=4)
    with pytest.raises(UserError, match="gives 2x2 tokens of an image, the network has 4x4"):
        task.cost(
            jnp.zeros((2, 16, 4)),
            image,
            Question(image, {}, jnp.ones((2, 16), bool)),
            jnp.ones(2, bool),
            variables_of(task),
        )
    spec = {"views_global": jax.ShapeDtypeStruct((1, 2, 8, 8, 1), jnp.uint8)}
    with pytest.raises(UserError, match="take the transform `views` off"):
        task.init(KEY, spec)
