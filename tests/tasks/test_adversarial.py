"""Generative adversarial learning against PyTorch: networks of StyleGAN2, steps of both GANs."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity import adversarial as golden
from parity.deterministic import sample, weights

from jaxvision import models, tasks
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.metrics import compute
from jaxvision.models.generation import stylegan2
from jaxvision.tasks import sampling
from jaxvision.tasks.generation.task import Adversarial
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.sampling import Sampling
from jaxvision.train.step import Group, init_state, make_train_step

FOUND = np.load(golden.GOLDEN)
GENERATOR = models.create(
    "stylegan2_generator",
    size=golden.SIZE,
    latent=golden.LATENT,
    layers=golden.LAYERS,
    narrow=golden.NARROW,
)
DISCRIMINATOR = models.create("stylegan2_discriminator", narrow=golden.NARROW)
LATENTS = golden.normal((golden.BATCH, golden.LATENT))
NOISE = [jnp.asarray(x) for x in golden.noises(golden.BATCH)]
IMAGES = jnp.asarray(golden.images() / 127.5 - 1, jnp.float32)
INPUTS = Inputs((0.5,), (0.5,))
FACTS = SimpleNamespace(class_names=(), keypoint_order=())


def variables_of(name, network, inputs, file=""):
    """The reference's weights in a network of ours."""
    shapes = json.loads(str(FOUND[f"{file or name}/shapes"]))
    state = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
    if name in models.names():
        state = models.variant(name).convert(state)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, train=False))
    return torch_weights.to_variables(state, like)


def generator_variables():
    return variables_of("stylegan2_generator", GENERATOR, LATENTS, "generator")


def discriminator_variables():
    return variables_of("stylegan2_discriminator", DISCRIMINATOR, IMAGES, "discriminator")


def close(ours, expected, rtol=1e-4):
    np.testing.assert_allclose(ours, expected, rtol, rtol * np.abs(expected).max())


def outputs(images):
    return sample(np.moveaxis(images, -1, 1), golden.OUTPUTS)


def parts(tree, name):
    state = torch_weights.to_state_dict(tree)
    state = models.variant(name).export(state) if name else state
    apart = ("noises", "num_batches_tracked")
    kept = {k: v for k, v in state.items() if not any(name in k for name in apart)}
    found = [sample(np.asarray(kept[key]), golden.GRADIENTS) for key in sorted(kept)]
    return np.concatenate(found)


def test_images_of_styles_are_the_references():
    variables = generator_variables()
    apply = jax.jit(GENERATOR.apply, static_argnames=("method",))
    close(outputs(apply(variables, LATENTS)), FOUND["stored noise"])
    one = apply(variables, LATENTS, method="mapping")
    two = apply(variables, LATENTS[::-1] * 1.1, method="mapping")
    mean = two.mean(0)
    short = mean + golden.TRUNCATION * (one - mean)
    images = apply(variables, repeated(short), NOISE, method="synthesis")
    close(outputs(images), FOUND["truncated"])


def repeated(style):
    return jnp.repeat(style[:, None], GENERATOR.styles, 1)


def test_gradients_of_the_generator_are_the_references():
    variables = generator_variables()

    def squares(params):
        own = {**variables, "params": params}
        one = GENERATOR.apply(own, LATENTS, method="mapping")
        two = GENERATOR.apply(own, LATENTS[::-1] * 1.1, method="mapping")
        place = jnp.arange(GENERATOR.styles)[None, :, None]
        styles = jnp.where(place < golden.CHANGE, repeated(one), repeated(two))
        images = GENERATOR.apply(own, styles, NOISE, method="synthesis")
        return jnp.square(images).sum(), images

    gradient, images = jax.jit(jax.grad(squares, has_aux=True))(variables["params"])
    close(outputs(images), FOUND["mixed"])
    close(parts({"params": gradient}, "stylegan2_generator"), FOUND["generator/gradient"], 1e-3)


def test_the_discriminator_is_the_references():
    variables = discriminator_variables()

    def squares(params):
        logits = DISCRIMINATOR.apply({"params": params}, IMAGES, train=True)
        return jnp.square(logits).sum(), logits

    gradient, logits = jax.jit(jax.grad(squares, has_aux=True))(variables["params"])
    close(logits, FOUND["logits"])
    expected = FOUND["discriminator/gradient"]
    close(parts({"params": gradient}, "stylegan2_discriminator"), expected, 1e-3)


@pytest.mark.parametrize("which", ["stylegan2", "dcgan"])
def test_an_alternating_step_is_that_of_pytorch(which, monkeypatch):
    """Losses, and both networks after the updates; for StyleGAN2 with all that is lazy."""
    monkeypatch.setattr(
        sampling, "normal", lambda keys, shape: jnp.asarray(golden.normal((len(keys), *shape)))
    )
    monkeypatch.setattr(
        stylegan2.Generator,
        "noise",
        lambda self, keys: [jnp.asarray(x) for x in golden.noises(len(keys))],
    )
    if which == "stylegan2":
        task = Adversarial(
            GENERATOR, DISCRIMINATOR, INPUTS, gradient_penalty=golden.R1, path_length=golden.PATH
        )
        pair = {"generator": generator_variables(), "discriminator": discriminator_variables()}
    else:
        generator = models.create(
            "dcgan_generator", size=golden.SIZE, latent=golden.LATENT, width=3
        )
        discriminator = models.create("dcgan_discriminator", width=4)
        task = Adversarial(generator, discriminator, INPUTS)
        pair = {
            "generator": variables_of("", generator, LATENTS, "dcgan generator"),
            "discriminator": variables_of("", discriminator, IMAGES, "dcgan discriminator"),
        }
    kinds = {kind for one in pair.values() for kind in one}
    variables = {kind: {n: one.get(kind, {}) for n, one in pair.items()} for kind in kinds}
    if which == "stylegan2":
        variables["path"] = {"mean": jnp.asarray(golden.MEAN_LENGTH)}
    rule = optax.sgd(golden.RATE)
    groups = {name: Group(rule, owns) for name, owns in task.groups.items()}
    state = init_state(variables, groups, training_collections=task.training_collections)
    batch = {"image": jnp.asarray(golden.images()), "valid": jnp.ones(golden.BATCH, bool)}
    new, sums = jax.jit(make_train_step(task, groups, seed=0))(state, batch)
    losses = json.loads(str(FOUND[f"{which}/losses"]))
    if which == "stylegan2":
        close(new.model_state["path"]["mean"], np.float32(losses.pop("mean")), 1e-3)
    found = compute(jax.device_get(sums))
    for name, value in losses.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name
    for part in pair:
        tree = {kind: tree[part] for kind, tree in new.variables().items() if kind != "path"}
        name = f"stylegan2_{part}" if which == "stylegan2" else ""
        close(parts(tree, name), FOUND[f"{which}/{part}"], 1e-4)


def test_what_is_lazy_is_done_when_it_is_due():
    task = Adversarial(
        GENERATOR,
        DISCRIMINATOR,
        INPUTS,
        gradient_penalty=10.0,
        gradient_penalty_every=2,
        style_mixing=0.9,
    )
    spec = {"image": jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)}
    groups = {name: Group(optax.sgd(1e-3), owns) for name, owns in task.groups.items()}
    state = init_state(jax.jit(lambda: task.init(jax.random.key(0), spec))(), groups)
    step = jax.jit(make_train_step(task, groups, seed=0))
    batch = {"image": jnp.asarray(golden.images()), "valid": jnp.ones(golden.BATCH, bool)}
    seen = []
    for _ in range(3):
        state, sums = step(state, batch)
        seen.append(float(sums["gradient_penalty"].weight))
    assert seen == [1, 0, 1]


def test_truncation_leads_to_the_mean_and_noise_is_each_samples_own():
    task = Adversarial(GENERATOR, DISCRIMINATOR)
    pair = {"generator": generator_variables(), "discriminator": discriminator_variables()}
    kinds = {kind for one in pair.values() for kind in one}
    variables = {kind: {n: one.get(kind, {}) for n, one in pair.items()} for kind in kinds}
    draw = jax.jit(task.sample, static_argnums=(2, 3))
    key = jax.random.key(3)
    few, many = (draw(variables, key, count, Sampling()).astype(int) for count in (2, 4))
    np.testing.assert_allclose(few, many[:2], atol=1)
    still = draw(variables, key, 4, Sampling(truncation=0.0)).astype(int)
    spread = [np.abs(x - x.mean(0)).mean() for x in (many, still)]
    assert 0 < spread[1] < spread[0]  # what is left is the noise


def test_published_sizes():
    for name, image, expected in (
        ("stylegan2_generator", (1, 512), 30_370_060),
        ("stylegan2_discriminator", (1, 1024, 1024, 3), 29_012_513),
    ):
        network = models.create(name)
        x = jax.ShapeDtypeStruct(image, jnp.float32)
        shapes = jax.eval_shape(lambda x, n=network: n.init(jax.random.key(0), x), x)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


def test_what_is_of_styles_is_refused_for_networks_without():
    config = tasks.default_config("generation")
    config.model.name, config.model.options = "dcgan_generator", {"size": 8}
    config.generation.style_mixing = 0.9
    with pytest.raises(UserError, match="dcgan_generator has none"):
        tasks.create(config, FACTS)
    with pytest.raises(UserError, match="size=24 is none of 8, 16, 32"):
        models.create("stylegan2_generator", size=24).init(jax.random.key(0), jnp.zeros((1, 512)))
