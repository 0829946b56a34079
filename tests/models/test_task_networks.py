"""Generators, discriminators, localisers and heads against their PyTorch references."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import sample, weights
from parity.task_networks import CASES, GOLDEN, GRADIENTS, OUTPUTS, given

from jaxvision import models
from jaxvision.interop import torch_weights
from jaxvision.models.generation import stylegan2
from jaxvision.models.generation.diffusion_unet import DiffusionUnet
from jaxvision.models.generation.dit import DiT
from jaxvision.models.pretraining.dino import DinoHead

FOUND = np.load(GOLDEN)
DCGAN = {"latent": 5, "width": 3}
OURS = {
    "generator_16": models.create("dcgan_generator", size=16, channels=2, **DCGAN),
    "generator_28": models.create("dcgan_generator", size=28, channels=1, **DCGAN),
    "discriminator_16": models.create("dcgan_discriminator", width=4),
    "srresnet_2": models.create("srresnet", scale=2, depth=2),
    "srresnet_4": models.create("srresnet", depth=1),
    "msrresnet_3": models.create("msrresnet", scale=3, width=5, depth=1),
    "msrresnet_4": models.create("msrresnet", width=5, depth=2),
    "srgan_discriminator": models.create("srgan_discriminator", width=3, hidden=7),
    "localizer": models.create("localizer_resnet20_cifar", 5, encoder="resnet8_cifar", hidden=8),
    "dino_head": DinoHead(11, 9, 4),
    "dino_head_norm": DinoHead(11, 9, 4, norm=True),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name):
    shapes = json.loads(str(FOUND[f"{name}/shapes"]))
    state = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
    x = given(name)
    x = jnp.asarray(np.moveaxis(x, 1, -1) if x.ndim == 4 else x)
    network = OURS[name]
    takes_train = not isinstance(network, DinoHead)
    modes = ({"train": False}, {"train": True}) if takes_train else ({}, {})
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), x, **modes[0]))
    variables = torch_weights.to_variables(state, like)  # every name of the reference is used
    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}

    def output(params, mode):
        found, _ = network.apply({"params": params, **rest}, x, **mode, mutable=list(rest))
        return jnp.concatenate(list(found.values()), -1) if isinstance(found, dict) else found

    @jax.jit
    def computed(params):
        squares = lambda p: jnp.square(output(p, modes[1])).sum()  # noqa: E731
        return output(params, modes[0]), output(params, modes[1]), jax.grad(squares)(params)

    evaluated, trained, gradient = computed(variables["params"])
    for mode, ours in (("eval", evaluated), ("train", trained)):
        expected = FOUND[f"{name}/{mode}"]
        ours = np.moveaxis(ours, -1, 1) if ours.ndim == 4 else ours
        ours = sample(ours, OUTPUTS)
        np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())
    gradients = torch_weights.to_state_dict({"params": gradient})
    norms = [np.linalg.norm(gradients[key]) for key in sorted(gradients)]
    expected = FOUND[f"{name}/norms"]  # some are 0: of biases before batch norms
    np.testing.assert_allclose(norms, expected, 1e-3, 1e-5 + 1e-7 * expected.max())
    parts = np.concatenate([sample(gradients[key], GRADIENTS) for key in sorted(gradients)])
    expected = FOUND[f"{name}/gradient"]
    np.testing.assert_allclose(parts, expected, 1e-3, 1e-4 * np.abs(expected).max())


def test_every_other_network_has_a_case():
    # test_parity.py, test_captioning.py, test_vit_gpt2.py, test_autoencoders.py,
    # test_image_tokens.py and tests/tasks/test_adversarial.py
    roles = ("backbones", "segmentation", "pose", "captioning", "autoencoding", "pretraining")
    entries = [models.variant(name) for name in models.names()]
    others = {entry.module for entry in entries if entry.role not in roles}
    others = {module for module in others if not hasattr(module, "heads")}  # test_detectors.py
    others -= {stylegan2.Generator, stylegan2.Discriminator}
    others -= {DiffusionUnet, DiT}  # test_diffusion.py
    others = {module for module in others if not hasattr(module, "METHOD")}  # of reconstruction
    assert others == {type(network) for network in OURS.values()} - {DinoHead}


def test_published_sizes():
    """The parameters of the networks of pytorch/examples at 64 pixels."""
    for name, image, expected in (
        ("dcgan_generator", (1, 100), 3_576_704),
        ("dcgan_discriminator", (1, 64, 64, 3), 2_765_568),
        ("srresnet", (1, 24, 24, 3), 1_549_462),
        ("msrresnet", (1, 24, 24, 3), 1_517_571),
        ("srgan_discriminator", (1, 96, 96, 3), 23_565_505),
    ):
        network = models.create(name)
        x = jax.ShapeDtypeStruct(image, jnp.float32)
        params = jax.eval_shape(lambda x, n=network: n.init(jax.random.key(0), x), x)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
