"""Schedules, the forward process and samplers, against diffusers and by what must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import diffusion as reference
from parity.deterministic import sample

from jaxvision.errors import UserError
from jaxvision.losses import diffusion as losses
from jaxvision.ops import diffusion

FOUND = np.load(reference.GOLDEN)
RNG = np.random.default_rng(0)


def images(*shape):
    return jnp.asarray(RNG.uniform(-1, 1, shape), jnp.float32)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# -- diffusers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", diffusion.SCHEDULES)
def test_schedules_are_those_of_diffusers(name):
    ours = diffusion.noise_schedule(name).alpha_bars[::37]
    np.testing.assert_allclose(ours, FOUND[f"schedule/{name}"], 2e-6)


@pytest.mark.parametrize("name", reference.SAMPLERS)
@pytest.mark.parametrize("form", reference.FORMS)
def test_samplers_are_those_of_diffusers_step_for_step(name, form):
    schedule, prediction, *_, clip = reference.FORMS[form]
    *_, count, own = reference.SAMPLERS[name]
    table = diffusion.sampler_steps(schedule=diffusion.noise_schedule(schedule), count=count, **own)
    fresh = np.stack([reference.noise(str(number)) for number in range(count)])

    @jax.jit
    def all_images(x):
        def one(carry, row):
            (x, before), (step, fresh) = carry, row
            output = reference.said(x, step.timesteps, jnp.sin)
            new, x0 = diffusion.sampler_step(step, x, output, before, fresh, prediction, clip)
            return (new, x0), new

        return jax.lax.scan(one, (x, jnp.zeros_like(x)), (table, fresh))[1]

    first = jnp.asarray(reference.noise("first"))
    found = all_images(first)
    kept = reference.kept_steps(count)
    ours = np.stack([sample(found[number], reference.PLACES) for number in kept])
    np.testing.assert_allclose(ours, FOUND[f"{name}/{form}"], 3e-4, 1e-4)
    whole = diffusion.sample(
        table,
        lambda x, timestep: reference.said(x, timestep, jnp.sin),
        first,
        lambda number: jnp.asarray(fresh)[number],
        prediction,
        clip,
    )
    np.testing.assert_allclose(whole, found[-1], 1e-4, 1e-5)


def test_inpainting_goes_the_way_of_diffusers():
    steps, undone = diffusion.repaint_path(10, 3, 3)
    # There a step that is undone is named by the timestep that it leads to.
    timesteps = (9 - steps + undone) * 100
    np.testing.assert_array_equal(timesteps, FOUND["repaint"])


# -- what must hold --------------------------------------------------------------------------------


@given(st.sampled_from(diffusion.SCHEDULES), st.integers(2, 1500))
@settings(deadline=None, max_examples=30)
def test_images_fade(name, steps):
    schedule = diffusion.noise_schedule(name, steps)
    assert schedule.steps == steps
    assert np.all(np.diff(schedule.alpha_bars) < 0)
    assert schedule.alpha_bars[0] < 1
    assert schedule.alpha_bars[-1] > 0
    if steps > 30:  # they end in noise, however many there are
        assert schedule.alpha_bars[-1] < 1e-3


@given(st.sampled_from(diffusion.PREDICTIONS), st.floats(1e-3, 0.999), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_what_is_said_tells_image_and_noise(prediction, alpha_bar, seed):
    rng = np.random.default_rng(seed)
    x0, noise = (jnp.asarray(rng.normal(size=(2, 3, 3, 1)), jnp.float32) for _ in range(2))
    kept = jnp.full(2, alpha_bar, jnp.float32)
    x = diffusion.add_noise(x0, noise, kept)
    said = diffusion.target(prediction, x0, noise, kept)
    found = diffusion.clean_and_noise(prediction, said, x, kept)
    for ours, expected in zip(found, (x0, noise)):
        np.testing.assert_allclose(ours, expected, 1e-3, 2e-3)


@given(st.sampled_from(diffusion.SCHEDULES), st.integers(1, 1000))
@settings(deadline=None, max_examples=30)
def test_ddim_that_draws_all_its_noise_is_ddpm(name, count):
    schedule = diffusion.noise_schedule(name)
    ddim, ddpm = (
        diffusion.ddim_steps(schedule, count, eta=1.0),
        diffusion.ddpm_steps(schedule, count),
    )
    np.testing.assert_array_equal(ddim.timesteps, ddpm.timesteps)
    np.testing.assert_allclose(ddim.fresh, ddpm.fresh, 1e-5, 1e-6)
    # The noise that was found is of the image and what was found of it.
    signal, spread = np.sqrt(ddim.alpha_bar), np.sqrt(1 - ddim.alpha_bar)
    np.testing.assert_allclose(ddim.noise / spread, ddpm.image, 1e-4, 1e-4)
    np.testing.assert_allclose(ddim.clean - ddim.noise * signal / spread, ddpm.clean, 1e-4, 1e-4)


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS)
@pytest.mark.parametrize("schedule", diffusion.SCHEDULES)
def test_a_perfect_network_is_sampled_to_its_image(sampler, schedule):
    schedule, x0 = diffusion.noise_schedule(schedule), images(2, 3, 3, 1)
    kept = jnp.asarray(schedule.alpha_bars)
    for count, prediction in ((1, "epsilon"), (2, "v"), (9, "epsilon"), (40, "x0")):
        table = diffusion.sampler_steps(sampler, schedule, count, eta=0.5)

        def perfect(x, timestep, prediction=prediction):
            signal, spread = jnp.sqrt(kept[timestep]), jnp.sqrt(1 - kept[timestep])
            return diffusion.target(prediction, x0, (x - signal * x0) / spread, kept[timestep])

        found = diffusion.sample(
            table, perfect, normal(2, 3, 3, 1), lambda number: jnp.ones((2, 3, 3, 1)), prediction
        )
        np.testing.assert_allclose(found, x0, 1e-3, 2e-3)


def test_tables_end_at_the_image_and_say_what_they_need():
    schedule = diffusion.noise_schedule("linear")
    for name in diffusion.SAMPLERS:
        table = diffusion.sampler_steps(name, schedule, 30)
        assert np.all(np.diff(table.timesteps) < 0)
        assert table.after[-1] == 1
        np.testing.assert_array_equal(table.after[:-1], table.alpha_bar[1:])
        assert table.draws == (name == "ddpm")
        assert table.looks_back == (name == "dpm++")
    assert diffusion.ddim_steps(schedule, 30, eta=0.1).draws


def test_known_pixels_are_kept_and_missing_ones_made():
    schedule = diffusion.noise_schedule("cosine", 50)
    known, truth = images(2, 4, 4, 1), images(2, 4, 4, 1)
    missing = jnp.asarray(RNG.random((2, 4, 4, 1)) < 0.5)
    kept = jnp.asarray(schedule.alpha_bars)

    def perfect(x, timestep):
        return (x - jnp.sqrt(kept[timestep]) * truth) / jnp.sqrt(1 - kept[timestep])

    key = jax.random.key(0)
    found = diffusion.inpaint(
        diffusion.ddpm_steps(schedule, 10),
        perfect,
        normal(2, 4, 4, 1),
        known,
        missing,
        lambda number: jax.random.normal(jax.random.fold_in(key, number), (2, 4, 4, 1)),
        jump=3,
        repeats=2,
    )
    np.testing.assert_array_equal(found[~missing], known[~missing])
    np.testing.assert_allclose(found[missing], truth[missing], 1e-3, 2e-3)


def test_what_is_refused():
    schedule = diffusion.noise_schedule("linear", 20)
    with pytest.raises(UserError, match=r"Unknown noise schedule 'cosin'. Did you mean 'cosine'"):
        diffusion.noise_schedule("cosin")
    with pytest.raises(UserError, match="two steps or more, not 1"):
        diffusion.noise_schedule("linear", 1)
    with pytest.raises(UserError, match="Unknown prediction 'eps'"):
        diffusion.target("eps", images(1, 1, 1, 1), normal(1, 1, 1, 1), jnp.ones(1))
    with pytest.raises(UserError, match=r"Unknown sampler 'dim'. Did you mean 'ddim'"):
        diffusion.sampler_steps("dim", schedule, 5)
    for name, count in (("ddim", 21), ("ddpm", 0), ("dpm++", 20)):
        with pytest.raises(UserError, match="where 20 were trained"):
            diffusion.sampler_steps(name, schedule, count)
    nothing = images(1, 2, 2, 1)
    table = diffusion.dpm_solver_steps(schedule, 5)
    with pytest.raises(UserError, match="take a sampler without memory, ddim or ddpm"):
        diffusion.inpaint(table, jnp.add, nothing, nothing, nothing > 0, jnp.zeros)


# -- the loss and the bound ------------------------------------------------------------------------


def test_all_predictions_have_one_loss_where_snr_is_capped():
    """Weighted by min-SNR, errors of noise, image and v are the same error of the image."""
    schedule = diffusion.noise_schedule("cosine")
    kept = jnp.asarray(schedule.alpha_bars[[5, 300, 700, 950]])
    x0, noise, wrong = images(4, 3, 3, 1), normal(4, 3, 3, 1), images(4, 3, 3, 1)
    x = diffusion.add_noise(x0, noise, kept)
    signal, spread = (np.sqrt(v)[:, None, None, None] for v in (kept, 1 - kept))
    said = diffusion.target("x0", wrong, noise, kept), (x - signal * wrong) / spread
    found = {
        "x0": losses.denoising_loss("x0", said[0], x0, noise, kept, 5.0),
        "epsilon": losses.denoising_loss("epsilon", said[1], x0, noise, kept, 5.0),
        "v": losses.denoising_loss("v", signal * said[1] - spread * wrong, x0, noise, kept, 5.0),
    }
    expected = np.minimum(kept / (1 - kept), 5) * np.square(wrong - x0).mean((1, 2, 3))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected, 2e-3, err_msg=name)
    plain = losses.denoising_loss("epsilon", said[1], x0, noise, kept)
    np.testing.assert_allclose(plain, np.square(said[1] - noise).mean((1, 2, 3)), 1e-5)


def test_the_divergence_of_a_step_is_that_of_its_gaussians():
    schedule = diffusion.noise_schedule("linear", 50)
    timestep, x0, found = jnp.array([1, 20, 49]), images(3, 2, 2, 1), images(3, 2, 2, 1)
    ours = losses.step_divergence(schedule, timestep, x0, found)
    kept, betas = schedule.alpha_bars.astype(np.float64), schedule.betas.astype(np.float64)
    for row, t in enumerate(np.asarray(timestep)):
        # Ho et al. 2020, eq. 7: both have the posterior's variance, and means of x0 and `found`.
        variance = (1 - kept[t - 1]) / (1 - kept[t]) * betas[t]
        factor = np.sqrt(kept[t - 1]) * betas[t] / (1 - kept[t])
        apart = factor * np.asarray(x0[row] - found[row], np.float64)
        np.testing.assert_allclose(ours[row], np.square(apart).sum() / (2 * variance), 1e-3)


def test_the_bound_draws_timesteps_evenly_in_log_snr():
    schedule = diffusion.noise_schedule("cosine", 40)
    places = (jnp.arange(20_000) + 0.5) / 20_000
    timestep, chance = losses.bound_timesteps(schedule, places)
    counts = np.bincount(timestep, minlength=40)
    assert counts[0] == 0
    shares = -np.diff(np.log(schedule.snr))
    np.testing.assert_allclose(counts[1:] / 20_000, shares / shares.sum(), atol=2e-4)
    # So divergences over their probabilities have the sum over all timesteps for their mean.
    x0, found = images(1, 2, 2, 1), images(1, 2, 2, 1)
    every = losses.step_divergence(
        schedule, jnp.arange(1, 40), jnp.tile(x0, (39, 1, 1, 1)), jnp.tile(found, (39, 1, 1, 1))
    )
    drawn = every[timestep - 1] / chance
    np.testing.assert_allclose(drawn.mean(), every.sum(), 5e-3)


def test_the_decoder_spreads_one_over_256_values():
    schedule = diffusion.noise_schedule("linear")
    values = jnp.asarray(np.arange(256) / 127.5 - 1, jnp.float32)[:, None, None, None]
    for found in (-1.0, -0.37, 0.001, 0.99, 1.0):
        nats = losses.decoder_loss(schedule, values, jnp.full((256, 1, 1, 1), found))
        np.testing.assert_allclose(np.exp(-np.asarray(nats, np.float64)).sum(), 1, 1e-4)
        assert np.all(np.isfinite(nats))
        nearest = np.abs(np.arange(256) / 127.5 - 1 - found).argmin()
        assert np.argmin(nats) == nearest


def test_the_prior_is_the_divergence_of_gaussians():
    schedule = diffusion.noise_schedule("linear", 5)
    x0 = images(3, 2, 2, 1)
    kept = float(schedule.alpha_bars[-1])
    mean, variance = np.sqrt(kept) * np.asarray(x0, np.float64), 1 - kept
    expected = (variance + mean**2 - 1 - np.log(variance)).sum((1, 2, 3)) / 2
    np.testing.assert_allclose(losses.prior_divergence(schedule, x0), expected, 1e-4, 1e-5)
