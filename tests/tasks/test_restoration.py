"""Super-resolution: degradation, metrics, losses, both networks' updates, tiles."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from jaxvision import models, tasks
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.metrics import compute
from jaxvision.ops.resize import resize_pixels
from jaxvision.pretrained import Weights
from jaxvision.tasks import base
from jaxvision.tasks.restoration.task import Restoration, luma
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
FACTS = SimpleNamespace(class_names=(), keypoint_order=())


def photographs(count=3, height=24, width=32, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 4, width // 4, 3), np.uint8)
    fine = rng.integers(-20, 20, (count, height, width, 3))
    return np.clip(coarse.repeat(4, 1).repeat(4, 2) + fine, 0, 255).astype(np.uint8)


def task_of(**options):
    return Restoration(models.create("msrresnet", scale=2, width=4, depth=1), **options)


def batch_of(images):
    return {"image": jnp.asarray(images), "valid": jnp.ones(len(images), bool)}


@pytest.mark.parametrize("size", [(12, 16), (6, 8), (13, 21), (48, 64), (24, 10)])
def test_small_images_are_pillows_bit_for_bit(size):
    images = photographs()
    expected = [
        np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.BICUBIC)) for x in images
    ]
    found = jax.jit(resize_pixels, static_argnums=1)(jnp.asarray(images), size)
    np.testing.assert_array_equal(found, np.stack(expected))


def test_luma_is_that_of_bt_601():
    images = photographs()
    expected = np.stack([rgb2ycbcr(x)[..., :1] for x in images])
    np.testing.assert_allclose(luma(jnp.asarray(images, jnp.float32)), expected, rtol=1e-5)


def test_evaluation_is_psnr_of_luma_without_the_border():
    task, images = task_of(), photographs()
    variables = init_variables(task, 0, base.image_spec(images.shape[1:]))
    sums, _ = jax.jit(task.evaluate)(variables, batch_of(images), KEY)
    found = compute(jax.device_get(sums))
    expected = []
    for image in images:
        height, width = image.shape[:2]
        small = Image.fromarray(image).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
        large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
        inside = [rgb2ycbcr(x)[2:-2, 2:-2, 0] for x in (image, large)]
        expected.append(peak_signal_noise_ratio(*inside, data_range=255))
    assert found["bicubic_psnr"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert found["psnr_gain"] == pytest.approx(found["psnr"] - found["bicubic_psnr"], abs=1e-4)
    assert 0 < found["ssim"] < 1
    # A network of small weights begins as the bilinear image.
    assert abs(found["psnr_gain"]) < 3
    shown = jax.jit(task.pictured)(variables, batch_of(images), KEY)
    assert shown["enlarged"].shape == shown["bicubic"].shape == images.shape


def test_it_learns_to_be_better_than_bicubic():
    images = photographs(8)
    task = task_of(loss_name="mse")
    groups = {"main": Group(optax.adam(3e-3))}
    state = init_state(init_variables(task, 0, base.image_spec(images.shape[1:])), groups)
    step = jax.jit(make_train_step(task, groups, seed=0))
    for _ in range(60):
        state, sums = step(state, batch_of(images))
    sums, _ = jax.jit(task.evaluate)(state.variables(), batch_of(images), KEY)
    assert compute(jax.device_get(sums))["psnr_gain"] > 0.3


def adversarial():
    config = tasks.default_config("restoration")
    config.model.name = "msrresnet"
    config.model.options = {"scale": 2, "width": 4, "depth": 1}
    own = config.restoration
    own.pixel_weight, own.adversarial_weight = 0.5, 0.1
    own.discriminator, own.discriminator_options = "srgan_discriminator", {"width": 2, "hidden": 3}
    own.perceptual.network, own.perceptual.options = "resnet8_cifar", {"num_classes": 5}
    own.perceptual.layer, own.perceptual.weights = "layer1_0/conv1", "given"
    own.perceptual.weight = 2.0
    return config, tasks.create(config, FACTS)


def test_srgan_updates_the_discriminator_then_the_network():
    config, task = adversarial()
    images = photographs()
    fresh = init_variables(task, 0, base.image_spec(images.shape[1:]))
    trained = task.perceptual.model.init(jax.random.key(3), jnp.zeros((1, 24, 32, 3)), train=False)
    weights = Weights(torch_weights.to_state_dict(trained), "given")
    variables = task.load_weights(config, fresh, lambda *_: weights)
    jax.tree.map(np.testing.assert_array_equal, variables["perceptual"], dict(trained))
    groups = {name: Group(optax.sgd(0.1), owns) for name, owns in task.groups.items()}
    assert list(groups) == ["discriminator", "generator"]
    state = init_state(variables, groups)
    new, sums = jax.jit(make_train_step(task, groups, seed=0))(state, batch_of(images))
    found = compute(jax.device_get(sums))
    # By hand: what the network makes, and what the others say of it.
    large = jnp.asarray(images / 255, jnp.float32)
    small = jnp.asarray(resize_pixels(jnp.asarray(images), (12, 16)) / 255, jnp.float32)
    made = task.model.apply({"params": state.params["generator"]}, small, train=True)
    assert found["pixel_loss"] == pytest.approx(float(jnp.abs(made - large).mean()), rel=1e-4)
    maps = float(task.perceptual.difference(dict(trained), made, large))
    assert found["perceptual_loss"] == pytest.approx(maps, rel=1e-3)
    judged = {
        "params": new.params["discriminator"],
        "batch_stats": new.model_state["batch_stats"]["discriminator"],
    }
    of_made, _ = task.discriminator.apply(judged, made, train=True, mutable=["batch_stats"])
    opinion = float(jax.nn.softplus(-of_made).mean())
    assert found["generator_loss"] == pytest.approx(opinion, rel=1e-3)
    total = 0.5 * found["pixel_loss"] + 2.0 * maps + 0.1 * opinion
    assert found["loss"] == pytest.approx(total, rel=1e-3)
    for name in groups:
        before, after = (jax.tree.leaves(x.params[name]) for x in (state, new))
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    jax.tree.map(np.testing.assert_array_equal, new.model_state["perceptual"], dict(trained))


def test_tiles_of_what_is_the_same_everywhere_are_the_image():
    task = task_of()
    whole = np.random.default_rng(0).integers(0, 256, (2 * 20, 2 * 30, 3)).astype(np.uint8)
    corners = [(top, left) for top in (0, 8) for left in (0, 9, 18)]
    parts = [
        {"enlarged": whole[2 * top : 2 * top + 24, 2 * left : 2 * left + 24]}
        for top, left in corners
    ]
    found = task.join_tiles(parts, corners, (12, 12), (20, 30))["enlarged"]
    np.testing.assert_array_equal(found, whole)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="24x31 cannot be made 2 times smaller"):
        init_variables(task_of(), 0, base.image_spec((24, 31, 3)))
    config = tasks.default_config("restoration")
    config.model.name = "msrresnet"
    config.restoration.perceptual.network = "vgg19"
    with pytest.raises(UserError, match=r"wants perceptual\.weights too"):
        tasks.create(config, FACTS)
    with pytest.raises(UserError, match="2 or 4 times; got scale=3"):
        models.create("srresnet", scale=3).init(KEY, jnp.zeros((1, 8, 8, 3)))
