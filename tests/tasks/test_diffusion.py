"""The task `diffusion`: its loss, its evaluation, and how it draws."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.losses import diffusion as losses
from jaxvision.ops import diffusion
from jaxvision.runs.sampling import check_settings
from jaxvision.tasks import base, configuration
from jaxvision.tasks.diffusion.task import Diffusion, Sampler
from jaxvision.tasks.sampling import Sampling, row_keys
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
CLASSES = ("dark", "grey", "bright")
LEVELS = np.array([0, 102, 204])


class Levels(nn.Module):
    """Knows that an image of class k is all of one level, and of no class, of their mean.

    It says the noise; `offset` is a parameter, so that there is something to learn.
    """

    classes: int = 0
    steps: int = 20

    @nn.compact
    def __call__(self, image, timestep=0, label=None, train=False):
        offset = self.param("offset", nn.initializers.zeros, ())
        times = jnp.broadcast_to(jnp.asarray(timestep), (len(image),))
        kept = jnp.asarray(diffusion.noise_schedule("cosine", self.steps).alpha_bars)[times]
        levels = jnp.append(jnp.asarray(LEVELS), LEVELS.mean()) / 127.5 - 1
        if label is None:
            label = jnp.full(len(image), len(LEVELS))
        x0 = levels[label][:, None, None, None]
        signal, spread = (jnp.sqrt(v)[:, None, None, None] for v in (kept, 1 - kept))
        return (image - signal * x0) / spread + offset


def known(**more):
    """A task whose network knows its data."""
    task = Diffusion(
        model=Levels(),
        class_names=CLASSES,
        size=(4, 4),
        channels=1,
        schedule=diffusion.noise_schedule("cosine", 20),
        conditional=True,
        sampler=Sampler(steps=6),
    )
    return replace(task, **more)


def batch(count=6):
    label = jnp.arange(count, dtype=jnp.int32) % 3
    image = jnp.asarray(LEVELS, jnp.uint8)[label]
    return {
        "image": jnp.broadcast_to(image[:, None, None, None], (count, 4, 4, 1)),
        "label": label,
        "valid": jnp.arange(count) < count - 1,
    }


VARIABLES = {"params": {"offset": jnp.zeros(())}}


# -- training --------------------------------------------------------------------------------------


def test_a_network_that_knows_the_image_has_no_loss_unless_it_is_not_told_the_class():
    data = batch(300)

    def loss(task):
        return task.loss(VARIABLES["params"], {}, data, KEY)[0].loss

    assert loss(known(label_dropout=0.0)) == pytest.approx(0, abs=1e-6)
    dropped = float(loss(known(label_dropout=1.0)))
    some = float(loss(known(label_dropout=0.25)))
    assert dropped > 0.1
    assert some == pytest.approx(dropped / 4, rel=0.4)
    weighted = replace(known(label_dropout=1.0), min_snr=0.5)
    assert 0 < float(loss(weighted)) < dropped


def test_only_valid_images_are_learnt():
    task, data = known(label_dropout=0.0), batch(6)
    wrong = {**data, "label": data["label"].at[-1].set(0)}
    assert task.loss(VARIABLES["params"], {}, wrong, KEY)[0].loss == pytest.approx(0, abs=1e-6)


def configured(**keys):
    config = tasks.default_config("diffusion")
    config.data.channels = 1
    config.diffusion.size = 8
    config.model.name = "ddpm_cifar10"
    config.model.options = {"widths": (8, 8), "blocks": 1, "attention": (), "groups": 4}
    for key, value in keys.items():
        configuration.set_key(config, key.replace("__", "."), value)
    configuration.validate(config)
    return config


def test_it_learns():
    config = configured(diffusion__conditional=True, diffusion__prediction="v")
    task = tasks.create(config, Facts(CLASSES))
    variables = jax.jit(lambda: init_variables(task, 0, base.image_spec((8, 8, 1))))()
    groups = {"main": Group(optax.adam(1e-2))}
    state, curve = init_state(variables, groups), []
    step = jax.jit(make_train_step(task, groups, seed=0))
    data = batch(12)
    data["image"] = jnp.repeat(jnp.repeat(data["image"], 2, 1), 2, 2)
    for _ in range(60):
        state, sums = step(state, data)
        curve.append(float(sums["loss"].total / sums["loss"].weight))
    assert np.mean(curve[-15:]) < 0.75 * np.mean(curve[:5])


# -- evaluation ------------------------------------------------------------------------------------


def test_evaluation_looks_at_every_part_of_the_schedule_and_bounds_the_likelihood():
    task, data = known(), batch(40)
    sums, rows = jax.jit(task.evaluate)(VARIABLES, data, KEY)
    assert rows == {}
    found = {name: float(mean.total / mean.weight) for name, mean in sums.items()}
    assert set(found) == {"loss", "bits_per_dimension"}
    assert found["loss"] == pytest.approx(0, abs=1e-6)
    assert float(sums["loss"].weight) == 39
    # What is left is how sure the last step is, and that a trace of the image is never gone.
    x0 = task.inputs.evaluate(data["image"][:3])
    nats = losses.decoder_loss(task.schedule, x0, x0) + losses.prior_divergence(task.schedule, x0)
    bits = np.tile(nats, 13).mean() / (16 * np.log(2))
    assert found["bits_per_dimension"] == pytest.approx(bits, rel=1e-3)
    wrong = {"params": {"offset": jnp.asarray(0.5)}}
    worse, _ = jax.jit(task.evaluate)(wrong, data, KEY)
    worse = {name: float(mean.total / mean.weight) for name, mean in worse.items()}
    assert worse["loss"] == pytest.approx(0.25, rel=1e-4)
    assert worse["bits_per_dimension"] > found["bits_per_dimension"] + 0.1


def test_samples_are_judged_as_many_as_are_asked_for():
    data = batch(6)
    for wanted, count in ((2, 2), (-1, 6), (50, 6)):
        task = known(judge_samples=wanted, judge_steps=3)
        _, rows = jax.device_get(jax.jit(task.evaluate)(VARIABLES, data, KEY))
        assert rows["made"].sum() == count
        assert rows["fake_pixels"].shape == rows["real_pixels"].shape == (6, 64)
        assert np.all(rows["fake_pixels"][count:] == 0)
        scores = task.score(rows)
        assert set(scores) == set(task.scores()) == {"frechet_distance", "sample_spread"}
    levels = np.abs(rows["fake_pixels"][..., None] - LEVELS / 255).argmin(-1)  # all are of a class
    np.testing.assert_allclose(rows["fake_pixels"], LEVELS[levels] / 255, atol=1e-2)


# -- samples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS)
def test_samples_are_of_their_classes_whatever_their_number(sampler):
    task, settings = known(), Sampling(sampler=sampler, steps=5)

    def make(count, labels=None):
        keys = row_keys(KEY, count)
        return np.asarray(task.generate(VARIABLES, task.latents(keys), keys, labels, settings))

    labels = jnp.array([2, 0, 1, 2])
    np.testing.assert_allclose(make(4, labels)[:, 0, 0, 0], LEVELS[labels], atol=1)
    drawn = make(30)
    assert {int(value) for value in drawn[:, 0, 0, 0]} == set(LEVELS.tolist())
    np.testing.assert_array_equal(make(7), drawn[:7])


def test_guidance_leads_away_from_those_without_a_class():
    task, keys = known(), row_keys(KEY, 3)
    labels = jnp.arange(3)

    def make(guidance):
        settings = Sampling(guidance=guidance)
        images = task.generate(VARIABLES, task.latents(keys), keys, labels, settings)
        return np.asarray(images)[:, 0, 0, 0].astype(float)

    mean = LEVELS.mean()
    np.testing.assert_allclose(make(0.0), mean, atol=1)
    np.testing.assert_allclose(make(0.5), (LEVELS + mean) / 2, atol=1)
    np.testing.assert_allclose(make(1.5), np.clip(1.5 * LEVELS - 0.5 * mean, 0, 255), atol=1)


def test_images_between_latents_are_between_images():
    """With DDIM a latent says all: the same image from the same latent, whatever the key."""
    task = replace(known(), conditional=False, model=nn.Sequential([Flat()]))
    latents = task.latents(row_keys(KEY, 2))
    variables = task.model.init(KEY, latents, 0)
    first, second = (
        task.generate(variables, latents, row_keys(jax.random.key(seed), 2)) for seed in (1, 2)
    )
    np.testing.assert_array_equal(first, second)
    other = task.generate(variables, latents, row_keys(KEY, 2), None, Sampling(sampler="ddpm"))
    assert not np.array_equal(first, other)


class Flat(nn.Module):
    """Says that all is noise, but for a bit."""

    @nn.compact
    def __call__(self, image, timestep=0, label=None, train=False):
        return 0.9 * image


def test_parts_are_made_anew():
    task, keys = known(sampler=Sampler(steps=6, jump=2, repeats=2)), row_keys(KEY, 3)
    images = jnp.full((3, 4, 4, 1), 77, jnp.uint8)
    masks = jnp.asarray(RNG.random((3, 4, 4)) < 0.5)
    labels = jnp.array([0, 2, 1])
    for sampler in ("ddim", "ddpm"):
        settings = Sampling(sampler=sampler)
        made = np.asarray(task.inpaint(VARIABLES, images, masks, keys, labels, settings))
        assert (made[~masks] == 77).all()
        wanted = np.broadcast_to(LEVELS[labels][:, None, None], (3, 4, 4))
        np.testing.assert_allclose(made[..., 0][masks], wanted[masks], atol=1)
    with pytest.raises(UserError, match="take a sampler without memory"):
        task.inpaint(VARIABLES, images, masks, keys, labels, Sampling(sampler="dpm++"))


# -- what is refused -------------------------------------------------------------------------------


def test_settings():
    task = known()
    check_settings(task, (1,), Sampling(guidance=2.0, steps=3, sampler="ddpm"))
    with pytest.raises(UserError, match="no truncation"):
        check_settings(task, (), Sampling(truncation=0.5))
    keys = row_keys(KEY, 2)
    latents = task.latents(keys)
    with pytest.raises(UserError, match=r"makes 1 to 20 where 20 were trained"):
        task.generate(VARIABLES, latents, keys, None, Sampling(steps=21))
    plain = replace(task, conditional=False)
    with pytest.raises(UserError, match="Guidance leads towards a class"):
        plain.generate(VARIABLES, latents, keys, None, Sampling(guidance=2.0))
    with pytest.raises(UserError, match="trained without classes"):
        plain.generate(VARIABLES, latents, keys, jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"diffusion__label_dropout": 1.5}, "label_dropout is at most 1"),
        ({"diffusion__guidance": 2.0}, "set diffusion.conditional=True"),
        ({"diffusion__steps": 40}, r"sampler_steps=50: the sampler 'ddim' makes at most 40"),
        (
            {"diffusion__sampler": "dpm++", "diffusion__steps": 50},
            r"sampler_steps=50: the sampler 'dpm\+\+' makes at most 49",
        ),
        ({"diffusion__size": (8, 8, 8)}, r"a side or \(height, width\)"),
        ({"diffusion__prediction": "noise"}, "value of diffusion.prediction 'noise'"),
    ],
)
def test_keys_that_do_not_agree(keys, message):
    with pytest.raises(UserError, match=message):
        configured(**keys)


def test_data_that_do_not_fit():
    task = tasks.create(configured(), Facts())
    with pytest.raises(UserError, match=r"images of 8x9; set diffusion.size=\(8, 9\)"):
        init_variables(task, 0, base.image_spec((8, 9, 1)))
    with pytest.raises(UserError, match=r"images of 9x9; set diffusion.size=9"):
        init_variables(task, 0, base.image_spec((9, 9, 1)))
    conditional = configured(diffusion__conditional=True)
    with pytest.raises(UserError, match="The data have no classes"):
        tasks.create(conditional, Facts())
    told = known()
    data = {key: value for key, value in batch().items() if key != "label"}
    with pytest.raises(UserError, match="wants one label an image"):
        told.loss(VARIABLES["params"], {}, data, KEY)
    wide = tasks.create(configured(diffusion__size=(8, 12)), Facts())
    assert wide.latents(row_keys(KEY, 2)).shape == (2, 8, 12, 1)


def test_a_run_may_start_from_another():
    task = tasks.create(configured(), Facts())
    variables = init_variables(task, 0, base.image_spec((8, 8, 1)))
    assert task.parts({**variables, "judge": {}}) == {"model": variables}
