"""Captioning networks beside their PyTorch references, and decoded step by step."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.captioning import (
    CASES,
    CLASSES,
    GOLDEN,
    GRADIENTS,
    IMAGE,
    OUTPUTS,
    TOKENS,
    tokens,
    total,
)
from parity.deterministic import image, sample, weights

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops import decoding

FOUND = np.load(GOLDEN)


def network(name, **more):
    case = CASES[name]
    return models.create(case.model, CLASSES, **{**case.options, **more})


def image_of(name):
    return jnp.asarray(np.moveaxis(image(IMAGE, int(FOUND[f"{name}/draw"])), 1, -1))


def shapes_of(name):
    return {k: tuple(v) for k, v in json.loads(str(FOUND[f"{name}/shapes"])).items()}


@functools.cache
def variables(name):
    """With the reference's weights, all of which are used."""
    entry = models.variant(CASES[name].model)
    state = {key: weights(key, shape) for key, shape in shapes_of(name).items()}
    like = jax.eval_shape(lambda: network(name).init(jax.random.key(0), image_of(name)))
    return torch_weights.to_variables(entry.convert(state), like)


@functools.cache
def evaluated(name):
    """Logits of a call with all tokens, and of one step after the other."""
    said = jnp.asarray(tokens()[:, :-1], jnp.int32)

    @jax.jit
    def both(variables, image):
        apply = functools.partial(network(name).apply, variables)
        memory = apply(image, method="encode")
        cache = apply(memory, said.shape[1], method="start")

        def advance(cache, token):
            logits, cache = apply(cache, token, method="step")
            return cache, (logits, cache.get("attention"))

        _, (steps, looked) = jax.lax.scan(advance, cache, said.T)
        return apply(image, said), steps.swapaxes(0, 1), looked

    return both(variables(name), image_of(name))


def compare(ours, expected):
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_logits(name):
    logits, _, _ = evaluated(name)
    assert logits.shape == (IMAGE[0], TOKENS, CLASSES)
    compare(sample(logits, OUTPUTS), FOUND[f"{name}/logits"])


@pytest.mark.parametrize("name", CASES)
def test_steps_have_the_logits_of_a_call(name):
    logits, steps, looked = evaluated(name)
    compare(steps, logits)
    if name in ("nic", "cnn_rnn"):
        assert looked is None
        return
    sums = looked.sum((2, 3))
    assert looked.shape[1:] == (IMAGE[0], *((4, 6) if "vit" in name else (2, 3)))
    if "vit" in name:  # the class token has the rest
        assert np.all((sums > 0.5) & (sums < 1))
    else:
        np.testing.assert_allclose(sums, 1, 1e-5)


def test_normed_features_may_have_any_scale():
    """SqueezeNet has no norms and fresh biases are 0, so its maps are as large as its images."""
    small = image_of("nic")
    for normed in (True, False):
        made = models.create(
            "nic", CLASSES, encoder="squeezenet1_0", norm_features=normed, width=16, hidden=16
        )
        drawn = jax.jit(made.init)(jax.random.key(0), small)
        of_small, of_large = (jax.jit(made.apply)(drawn, n * small) for n in (1.0, 100.0))
        assert np.allclose(of_small, of_large, atol=1e-3) == normed


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients(name, monkeypatch):
    # The reference looks at the second likeliest place, where ours draws one.
    second = lambda key, logits: jnp.argsort(logits)[..., -2]  # noqa: E731
    monkeypatch.setattr(jax.random, "categorical", second)
    said = tokens().astype(np.int32)

    @jax.jit
    def step(variables, image):
        rest = {kind: tree for kind, tree in variables.items() if kind != "params"}

        def loss(params):
            found, _ = network(name).apply(
                {"params": params, **rest},
                image,
                said[:, :-1],
                train=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=list(rest),
            )
            nll = optax.softmax_cross_entropy_with_integer_labels(found["logits"], said[:, 1:])
            return total(found, nll.mean()), found

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (loss, found), gradients = step(variables(name), image_of(name))
    np.testing.assert_allclose(loss, FOUND[f"{name}/loss"], 1e-4)
    keys = {key.rpartition("/")[2] for key in FOUND if key.startswith(f"{name}/trained/")}
    assert set(found) == keys
    for key in keys:
        compare(sample(found[key], OUTPUTS), FOUND[f"{name}/trained/{key}"])
    entry = models.variant(CASES[name].model)
    theirs = entry.export(torch_weights.to_state_dict({"params": gradients}))
    learnt = json.loads(str(FOUND[f"{name}/learnt"]))
    assert sorted(theirs) == sorted(learnt)
    norms = [np.linalg.norm(theirs[key]) for key in learnt]
    rounding = 1e-6 * max(norms)
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-3, rounding)
    parts = [sample(theirs[key], GRADIENTS) for key in learnt]
    size = np.concatenate(
        [
            np.full(len(part), n / theirs[key].size ** 0.5)
            for part, n, key in zip(parts, norms, learnt)
        ]
    )
    expected = FOUND[f"{name}/gradients"]
    error = np.abs(np.concatenate(parts) - expected)
    assert np.all(error <= 1e-3 * (size + np.abs(expected)) + rounding)


@pytest.mark.parametrize("name", CASES)
def test_a_state_dict_goes_there_and_back(name):
    entry = models.variant(CASES[name].model)
    ours = torch_weights.to_state_dict(variables(name))
    theirs = entry.export(ours)
    kept = {k: v.shape for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert kept == shapes_of(name)
    for key, value in entry.convert(theirs).items():
        np.testing.assert_array_equal(value, ours[key])
    assert set(entry.convert(ours)) == set(ours)


@pytest.mark.parametrize("name", ["vit_transformer", "show_attend_tell", "cnn_rnn"])
def test_beams_with_a_cache_and_without(name):
    """Beams share what steps read of an image, or have it once more each."""
    length = 6
    options = {"begin": 1, "end": 2, "pad": 0, "length": length, "beams": 3}

    @jax.jit
    def both(variables, image):
        apply = functools.partial(network(name).apply, variables)
        memory = apply(image, method="encode")
        cache = apply(memory, length, method="start")
        cached = decoding.beam(functools.partial(apply, method="step"), cache, **options)

        def again(cache, token):
            """All tokens once more."""
            time = cache["time"][0]
            said = cache["said"].at[:, time].set(token)
            images = jnp.repeat(cache["memory"], len(said) // len(cache["memory"]), 0)
            new = {"memory": cache["memory"], "said": said, "time": cache["time"] + 1}
            return apply(images, said)[:, time], new

        nothing = jnp.zeros((len(image), length), jnp.int32)
        cache = {"memory": image, "said": nothing, "time": nothing[:, 0]}
        return cached, decoding.beam(again, cache, **options)

    cached, again = both(variables(name), image_of(name))
    np.testing.assert_array_equal(cached.tokens, again.tokens)
    np.testing.assert_allclose(cached.scores, again.scores, 1e-5)
    assert again.attention is None
    if name == "vit_transformer":
        assert cached.attention.shape == (IMAGE[0], length, 4, 6)


@pytest.mark.parametrize("name", CASES)
def test_sequences_in_bfloat16(name):
    model, options = network(name, dtype=jnp.bfloat16), {"begin": 1, "end": 2, "pad": 0}

    def found(variables, image):
        apply = functools.partial(model.apply, variables)
        cache = apply(apply(image, method="encode"), 5, method="start")
        step = functools.partial(apply, method="step")
        beams = decoding.beam(step, cache, **options, length=5, beams=2)
        key = jax.random.key(0)
        return beams, decoding.sample(step, cache, key, **options, length=5, samples=3)

    beams, samples = jax.eval_shape(found, variables(name), image_of(name))
    assert beams.tokens.shape == (IMAGE[0], 5)
    assert samples.tokens.shape == (3 * IMAGE[0], 5)
    assert samples.log_probabilities.dtype == jnp.float32


def test_hard_attention_draws_places_by_the_key():
    name, said = "hard_attention", jnp.asarray(tokens()[:, :-1], jnp.int32)

    @jax.jit
    def drawn(variables, image, key):
        model = network(name)
        rngs = {"dropout": key}
        return model.apply(variables, image, said, True, rngs=rngs, mutable=["batch_stats"])[0]

    runs = [drawn(variables(name), image_of(name), jax.random.key(seed)) for seed in (0, 0, 1)]
    one, again, other = (run["attention_log_probability"] for run in runs)
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    # What was drawn is a place, and of the first steps, which see the same, not always one.
    weights = runs[0]["attention"]
    nearest = np.abs(np.log(weights) - one[..., None]).min(-1)
    np.testing.assert_allclose(nearest, 0, atol=1e-5)
    firsts = {
        tuple(np.asarray(drawn(variables(name), image_of(name), jax.random.key(seed))
                         ["attention_log_probability"][:, 0]).tolist())
        for seed in range(8)
    }  # fmt: skip
    assert len(firsts) > 4


def test_a_share_of_the_images_is_looked_at_softly():
    name, said = "hard_attention", jnp.asarray(tokens()[:, :-1], jnp.int32)

    def found(share):
        model = network(name, soft_share=share)
        rngs = {"dropout": jax.random.key(0)}
        apply = functools.partial(model.apply, rngs=rngs, mutable=["batch_stats"])
        return jax.jit(lambda v, image: apply(v, image, said, True)[0])(
            variables(name), image_of(name)
        )

    soft = network("show_attend_tell").apply(
        variables(name), image_of(name), said, True, mutable=["batch_stats"]
    )[0]
    all_soft, some = found(1.0), found(0.5)
    np.testing.assert_allclose(all_soft["logits"], soft["logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(all_soft["attention_log_probability"], 0)
    rows = np.asarray(some["attention_log_probability"] == 0)
    assert (rows == rows[:, :1]).all()  # an image is looked at one way for all words
    close = np.isclose(some["logits"], soft["logits"], rtol=1e-4, atol=1e-4).all((1, 2))
    np.testing.assert_array_equal(close, rows[:, 0])
    assert 0 < close.sum() < len(close)


@pytest.mark.parametrize("name", ["nic", "show_attend_tell", "cnn_transformer"])
def test_dropout_acts_in_training_only(name):
    model, said = network(name, dropout=0.5), jnp.asarray(tokens()[:, :-1], jnp.int32)

    @functools.partial(jax.jit, static_argnums=3)
    def logits(variables, image, key, train):
        apply = functools.partial(model.apply, variables, image, said, train)
        found, _ = apply(rngs={"dropout": key}, mutable=["batch_stats"])
        return found["logits"] if train else found

    run = functools.partial(logits, variables(name), image_of(name))
    one, other = (run(jax.random.key(seed), True) for seed in (0, 1))
    assert not np.allclose(one, other)
    compare(run(jax.random.key(0), False), evaluated(name)[0])


# By name: the parameters of the references, with 1000 words and images of the published size.
PARAMETERS = {
    "nic": 27_683_368,
    "cnn_rnn": 76_963_880,
    "show_attend_tell": 35_550_249,
    "hard_attention": 35_550_249,
    "cnn_self_attention": 40_796_714,
    "cnn_transformer": 50_293_312,
    "vit_transformer": 111_961_344,
}


def traced(model, shape=(2, 64, 64, 3), **options):
    """What is returned and the variables, by shape."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, **options), x)


def test_every_network_has_a_case():
    names = {n for n in models.names() if models.variant(n).role == "captioning"}
    assert names == {*PARAMETERS, "vit_gpt2"}
    assert {case.model for case in CASES.values()} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    entry = models.variant(name)
    logits, found = traced(models.create(name), (1, *entry.input_shape))
    assert logits.shape == (1, 1, 1000)
    assert sum(leaf.size for leaf in jax.tree.leaves(found["params"])) == PARAMETERS[name]


@pytest.mark.parametrize("name", CASES)
def test_names_of_layers_inputs_and_dtypes(name):
    entry, model = models.variant(CASES[name].model), network(name, dtype=jnp.bfloat16)
    logits, found = traced(model)
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    names = torch_weights.torch_shapes(found)
    assert {f"{layer}.weight" for layer in (entry.first, *entry.classifier)} <= set(names)
    assert entry.ends == ("classes",)
    assert entry.inputs == ("image", "tokens")


@pytest.mark.parametrize("name", ["nic", "cnn_rnn", "cnn_self_attention", "cnn_transformer"])
@pytest.mark.parametrize("encoder", ["squeezenet1_1", "vit_tiny_patch16_224"])
def test_any_encoder(name, encoder):
    options = {k: v for k, v in CASES[name].options.items() if not k.startswith("encoder")}
    inside = {"depth": 1, "width": 8, "num_heads": 1} if "vit" in encoder else {}
    model = models.create(name, CLASSES, encoder=encoder, encoder_options=inside, **options)
    logits, found = traced(model)
    assert logits.shape == (2, 1, CLASSES)
    # A Transformer is given tokens of those that have them, the class token among them.
    tokens = name == "cnn_transformer" and "vit" in encoder
    assert ("norm" in found["params"]["encoder"]) == tokens


def test_images_and_sequences_that_do_not_fit():
    model = network("vit_transformer")
    said = jax.ShapeDtypeStruct((2, 10), jnp.int32)
    with pytest.raises(UserError, match=r"10 tokens; .* max_tokens=9"):
        jax.eval_shape(lambda t: traced(model, tokens=t), said)
    memory = jax.eval_shape(
        lambda v, x: model.apply(v, x, method="encode"),
        variables("vit_transformer"),
        image_of("vit_transformer"),
    )
    with pytest.raises(UserError, match=r"12 tokens; .* max_tokens=9"):
        jax.eval_shape(
            lambda v, m: model.apply(v, m, 12, method="start"), variables("vit_transformer"), memory
        )
    with pytest.raises(UserError, match="24 channels do not divide among 5 heads"):
        traced(network("cnn_transformer", num_heads=5))
    with pytest.raises(UserError, match="model with features 'nic'"):
        models.create("nic", 0)
