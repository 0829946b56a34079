"""Networks that say what was hidden from them, beside their PyTorch references."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import image, sample, weights
from parity.reconstruction import (
    BEIT,
    CORRUPTED,
    GOLDEN,
    GRADIENTS,
    MAE,
    MASKED,
    OUTPUTS,
    POSITIONS,
    hidden,
    noise,
    tokens,
)

from jaxvision import models, pretrained
from jaxvision.interop import torch_weights
from jaxvision.layers.patches import to_patches
from jaxvision.losses import cross_entropy, masked_ratio
from jaxvision.losses.reconstruction import hidden_patch_error, patch_statistics
from jaxvision.ops.masking import hidden_patches, kept_patches

FOUND = np.load(GOLDEN)
SIZES = json.loads(str(FOUND["sizes"]))


def encoder_options(sizes, **more):
    return {
        "width": sizes["hidden_size"],
        "depth": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "patch_size": sizes["patch_size"],
        **more,
    }


def network(name):
    if name == "beit":
        options = encoder_options(BEIT, shared_bias=True)
        return models.create(
            "beit_base_patch16_224_mim", codes=BEIT["vocab_size"], encoder_options=options
        )
    decoder = {"width": 4, "depth": 1, "num_heads": 1}
    return models.create(
        "mae_vit_base_patch16_224", encoder_options=encoder_options(MAE), **decoder
    )


def theirs(name):
    """A state_dict by the reference's names, without fixed positions."""
    shapes = json.loads(str(FOUND[f"{name}/shapes"]))
    return {k: weights(k, tuple(s)) for k, s in shapes.items() if not k.endswith(POSITIONS)}


def convert(name, state):
    which = "beit_base_patch16_224_mim" if name == "beit" else "mae_vit_base_patch16_224"
    return models.variant(which).convert(state)


def setup(name):
    """(network, variables with the reference's weights, images)."""
    one, x = network(name), jnp.asarray(np.moveaxis(image(MASKED[name]), 1, -1))
    fresh = jax.jit(lambda: one.init(jax.random.key(0), x, train=False))()
    positions = {n for n in torch_weights.torch_shapes(fresh) if n.endswith("pos_embed")}
    state = convert(name, theirs(name))
    return one, torch_weights.to_variables(state, fresh, keep=positions), x


def cost(name, output, x):
    valid = jnp.ones(len(x), bool)
    if name == "beit":
        losses, counted = cross_entropy(output, jnp.asarray(tokens()))
        return masked_ratio(losses, counted, jnp.asarray(hidden())).value
    wanted = to_patches(x, MAE["patch_size"])
    if name == "mae":
        mean, spread = patch_statistics(wanted)
        wanted = (wanted - mean) / spread
    which = hidden_patches(kept_patches(jnp.asarray(noise()), 4), 16)
    return hidden_patch_error(output, wanted, which, valid).value


@pytest.mark.parametrize("name", MASKED)
def test_outputs_loss_and_every_gradient(name):
    one, variables, x = setup(name)
    if name == "beit":
        inputs = {"hidden": jnp.asarray(hidden())}
    else:
        inputs = {"kept": kept_patches(jnp.asarray(noise()), 4)}
        which = hidden_patches(inputs["kept"], 16)
        np.testing.assert_array_equal(which, FOUND[f"{name}/hidden"])

    @jax.jit
    def computed(params):
        def loss(params):
            output = one.apply({"params": params}, x, train=True, **inputs)
            return cost(name, output, x), output

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, output), gradient = computed(variables["params"])
    expected = FOUND[f"{name}/output"]
    np.testing.assert_allclose(output, expected, 1e-4, 1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(loss, FOUND[f"{name}/loss"], 1e-5)
    flat, wanted = FOUND[f"{name}/gradient"], {}
    for key, value in sorted(theirs(name).items()):
        wanted[key], flat = flat[: value.size].reshape(value.shape), flat[value.size :]
    wanted = convert(name, wanted)
    found = torch_weights.to_state_dict({"params": gradient})
    fixed = found.keys() - wanted.keys()
    assert fixed == {key for key in found if key.endswith("pos_embed")}
    assert all(not found[key].any() for key in fixed)
    for key, value in wanted.items():
        scale = np.sqrt(np.mean(np.square(value))) + 1e-7
        np.testing.assert_allclose(found[key], value, 1e-3, 1e-3 * scale, err_msg=key)


def test_in_evaluation_blocks_are_called_one_by_one_to_the_same_end():
    one, variables, x = setup("mae")
    kept = kept_patches(jnp.asarray(noise()), 4)
    output = jax.jit(lambda v: one.apply(v, x, kept, train=False))(variables)
    expected = FOUND["mae/output"]
    np.testing.assert_allclose(output, expected, 1e-4, 1e-5 * np.abs(expected).max())


def by_authors(state):
    """A state_dict of ours of `mae` or `beit` by the names of the authors' files."""
    found = {}
    for name, value in state.items():
        name = name.removeprefix("encoder.")
        if name.startswith("decoder."):
            inner = name.removeprefix("decoder.")
            name = inner if inner == "mask_token" else f"decoder_{inner}"
        found[name] = value
    return found


@pytest.mark.parametrize("name", ["mae", "beit"])
def test_names_of_other_files(name):
    """Of the authors; of older files of transformers; and of the encoder alone in any of them."""
    _, variables, _ = setup(name)
    ours = torch_weights.to_state_dict(variables)
    authors = by_authors(ours)
    assert ("decoder_blocks.0.attn.qkv.weight" in authors) == (name == "mae")
    older = {}
    for key, value in theirs(name).items():
        key = key.replace("vit.layers.", "vit.encoder.layer.")
        key = key.replace("beit.layers.", "beit.encoder.layer.")
        key = key.replace("shared_position_bias.", "encoder.relative_position_bias.")
        key = key.replace(".attention.o_proj.", ".attention.output.dense.")
        for part, word in (("q", "query"), ("k", "key"), ("v", "value")):
            key = key.replace(f".attention.{part}_proj.", f".attention.attention.{word}.")
        key = key.replace(".mlp.fc1.", ".intermediate.dense.").replace(
            ".mlp.fc2.", ".output.dense."
        )
        older[key] = value
    fixed = {key for key in ours if key.endswith("pos_embed")}
    for state, lacking in ((authors, set()), (older, fixed)):
        found = convert(name, state)
        assert found.keys() == ours.keys() - lacking
        for key, value in found.items():
            np.testing.assert_array_equal(value, ours[key])
    encoder = "beit_base_patch16_224" if name == "beit" else "vit_base_patch16_224"
    backbone = models.variant(encoder).convert
    wanted = {key.removeprefix("encoder.") for key in ours if key.startswith("encoder.")}
    assert backbone(authors).keys() == wanted
    if name == "mae":
        wanted -= {"pos_embed"}
    assert backbone(older).keys() == wanted


def test_a_classifier_starts_from_what_was_pre_trained():
    """BEiT's table of all blocks goes to each, and a norm that there was none of is fresh."""
    _, variables, x = setup("beit")
    encoder = torch_weights.to_state_dict({"params": variables["params"]["encoder"]})
    options = encoder_options(BEIT)
    one = models.create("beit_base_patch16_224", 3, **options)
    fresh = jax.jit(lambda: one.init(jax.random.key(0), x, train=False))()
    given = pretrained.Weights(encoder, "a run")
    loaded = pretrained.load_into("beit_base_patch16_224", one, given, fresh, fine_tune=True)
    table = encoder["rel_pos_bias.relative_position_bias_table"]
    for block in ("blocks_0", "blocks_1"):
        found = loaded["params"][block]["attn"]["relative_position_bias_table"]
        np.testing.assert_array_equal(found, table)
    np.testing.assert_array_equal(loaded["params"]["fc_norm"]["scale"], 1)
    np.testing.assert_array_equal(
        loaded["params"]["head"]["kernel"], fresh["params"]["head"]["kernel"]
    )


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    """The parameters of the networks that are published, fixed positions among them."""
    one = models.create(name)
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(lambda x: one.init(jax.random.key(0), x), x)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == SIZES[name]


@pytest.mark.parametrize("name", CORRUPTED)
def test_autoencoders_of_corrupted_images(name):
    one = models.create(f"{name}_resnet18", width=4, encoder_options={"depths": (1, 1, 1, 1)})
    shapes = json.loads(str(FOUND[f"{name}/shapes"]))
    state = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
    x = jnp.asarray(np.moveaxis(image(CORRUPTED[name]), 1, -1))
    like = jax.eval_shape(lambda: one.init(jax.random.key(0), x, train=False))
    variables = torch_weights.to_variables(state, like)

    @jax.jit
    def computed(params):
        rest = {"batch_stats": variables["batch_stats"]}

        def squares(params):
            output, _ = one.apply(
                {"params": params, **rest}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(output).sum(), output

        evaluated = one.apply({"params": params, **rest}, x, train=False)
        gradient, trained = jax.grad(squares, has_aux=True)(params)
        return evaluated, trained, gradient

    evaluated, trained, gradient = computed(variables["params"])
    for mode, ours in (("eval", evaluated), ("train", trained)):
        expected = FOUND[f"{name}/{mode}"]
        ours = sample(np.moveaxis(ours, -1, 1), OUTPUTS)
        np.testing.assert_allclose(ours, expected, 1e-3, 1e-4 * np.abs(expected).max())
    gradients = torch_weights.to_state_dict({"params": gradient})
    norms = [np.linalg.norm(gradients[key]) for key in sorted(gradients)]
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-2)
    parts = np.concatenate([sample(gradients[key], GRADIENTS) for key in sorted(gradients)])
    expected = FOUND[f"{name}/gradient"]
    np.testing.assert_allclose(parts, expected, 1e-2, 1e-3 * np.abs(expected).max())
