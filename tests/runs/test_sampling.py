"""Samples of a stored run, and ways between them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.runs import sampling
from jaxvision.tasks import configuration
from jaxvision.tasks import sampling as latents
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.sampling import AS_TRAINED, Sampling, between, row_keys
from jaxvision.train.step import SAMPLING, init_variables, stream


class Points(latents.Generative):
    """Images of 2 x 2 pixels of a latent of four numbers, brighter by the class."""

    settings = ("labels", "truncation")

    def latents(self, keys):
        return latents.normal(keys, (4,))

    def generate(self, variables, latent, keys, labels=None, settings=AS_TRAINED):
        if labels is None:
            labels = jax.vmap(lambda key: jax.random.randint(key, (), 0, 3))(keys)
        values = variables["scale"] * settings.truncation * latent + 10 * labels[:, None]
        return jnp.clip(128 + values, 0, 255).astype(jnp.uint8).reshape(-1, 2, 2, 1)

    def inpaint(self, variables, images, masks, keys, labels, settings):
        made = self.generate(variables, self.latents(keys), keys, labels, settings)
        return jnp.where(masks[..., None], made, images)


def run():
    config = SimpleNamespace(data=SimpleNamespace(channels=1))
    variables = {"scale": 20.0}
    return SimpleNamespace(
        task=Points(),
        variables=variables,
        config=config,
        prepare=lambda record, rng: record,
        programs={},
    )


def test_samples_do_not_depend_on_their_number_nor_on_batches(monkeypatch):
    all_at_once = sampling.sample(run(), 7, seed=3)
    monkeypatch.setattr(sampling, "BATCH", 3)
    np.testing.assert_array_equal(sampling.sample(run(), 7, seed=3), all_at_once)
    np.testing.assert_array_equal(sampling.sample(run(), 2, seed=3), all_at_once[:2])
    assert not np.array_equal(sampling.sample(run(), 7, seed=4), all_at_once)


def test_nothing_is_compiled_twice():
    one = run()
    for seed in (1, 2):
        sampling.sample(one, 3, seed=seed)
    (program,) = one.programs.values()
    assert program._cache_size() == 1


def test_classes_are_taken_in_turn_and_settings_are_used():
    still = Sampling(truncation=0.0)
    found = sampling.sample(run(), 5, labels=(0, 2), settings=still)
    assert found[:, 0, 0, 0].tolist() == [128, 148, 128, 148, 128]
    names = ("boot", "coat", "bag")
    assert sampling.labels_of(("coat", "0"), names) == (1, 0)
    with pytest.raises(UserError, match=r"'boat'.*'boot'"):
        sampling.labels_of(("boat",), names)


def test_what_a_task_does_not_understand_is_refused():
    with pytest.raises(UserError, match="no guidance; what can be asked is: labels, truncation"):
        sampling.sample(run(), 2, settings=Sampling(guidance=2.0))
    with pytest.raises(UserError, match="Sampling is not for"):
        sampling.sample(SimpleNamespace(task=SimpleNamespace()), 2)


def test_ways_begin_with_the_samples_and_go_round():
    samples = sampling.sample(run(), 3, labels=(1,))
    ways = sampling.interpolate(run(), 3, 4, labels=(1,))
    assert ways.shape == (3, 4, 2, 2, 1)
    np.testing.assert_array_equal(ways[:, 0], samples)
    # A step before the next sample's latent, the image is nearly that sample.
    close = np.abs(ways[:, -1].astype(int) - np.roll(samples, -1, 0)).mean()
    assert close < np.abs(samples.astype(int) - np.roll(samples, -1, 0)).mean()


def test_between_is_the_great_circle():
    a, b = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 3.0]])
    half = between(a, b, 0.5)
    np.testing.assert_allclose(half, [[3 / np.sqrt(2)] * 2], rtol=1e-6)
    np.testing.assert_allclose(between(a, b, 1 / 3), [[3 * np.cos(np.pi / 6), 1.5]], rtol=1e-6)
    for part, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(between(a, b, part), end, atol=1e-6)
    np.testing.assert_allclose(between(a, a, 0.3), a, rtol=1e-6)
    keys = row_keys(jax.random.key(1), 3)
    np.testing.assert_array_equal(
        jax.random.key_data(row_keys(jax.random.key(1), 2, first=1)), jax.random.key_data(keys[1:])
    )


def test_what_a_mask_marks_is_made_anew(tmp_path):
    photograph, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(photograph)
    Image.fromarray(np.array([[0, 255], [0, 0]], np.uint8)).save(mask)
    seen, made = sampling.inpaint(run(), photograph, mask, 3)
    assert seen.shape == (2, 2, 1)
    assert made.shape == (3, 2, 2, 1)
    assert (made[:, [0, 1, 1], [0, 0, 1]] == 7).all()
    assert len(np.unique(made[:, 0, 1])) > 1
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mask)
    with pytest.raises(UserError, match="marks nothing"):
        sampling.inpaint(run(), photograph, mask, 1)
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(mask)
    with pytest.raises(UserError, match=r"has 3x2 pixels, .* has 2x2"):
        sampling.inpaint(run(), photograph, mask, 1)


def test_a_generators_weights_are_enough(tmp_path):
    config = configuration.load("configs/generation/ffhq.py:smoke")
    task = tasks.create(config, Facts())
    variables = init_variables(task, 0, image_spec((8, 8, 1)))
    state = torch_weights.to_state_dict(task.of_network(variables))
    file = tmp_path / "generator.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, file)
    found = runs.with_weights(config, str(file)).sample(2, seed=1)
    keys = row_keys(stream(1, SAMPLING), 2)
    expected = jax.jit(task.generate)(variables, task.latents(keys), keys)
    np.testing.assert_allclose(found.astype(int), expected, atol=1)
