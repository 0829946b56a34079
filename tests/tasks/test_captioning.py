"""Captioning: what is learnt, found, scored and shown, with a network of a table of pairs."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxvision import pretrained, tasks
from jaxvision.data import caption_frequencies, tokenizer
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.losses import Objective
from jaxvision.runs import Prediction
from jaxvision.tasks import base, configuration
from jaxvision.tasks.captioning import report
from jaxvision.tasks.captioning.task import Captioning, Decoding
from jaxvision.tasks.inputs import Inputs
from jaxvision.train import mesh, setup
from jaxvision.train.step import Group, init_state, make_train_step

CONFIGS = Path(__file__).parents[2] / "configs" / "captioning"
KEY = jax.random.key(0)
TEXTS = ("a red ring", "a star")
WORDS = tokenizer.train(TEXTS, "word", size=20)
A, RED, RING, STAR = (WORDS.tokens(word)[0] for word in ("a", "red", "ring", "star"))
LIMIT = 6


class Pairs(nn.Module):
    """The scores of the next token are a row of a table, whatever the image is."""

    num_classes: int = WORDS.size
    looks: bool = False  # at the first of four places, a quarter of the time at each other
    hard: bool = False

    def setup(self):
        self.encoder = self.param("encoder", lambda key: {"scale": jnp.ones(())})
        self.table = self.param("table", nn.initializers.zeros, (self.num_classes,) * 2)

    def __call__(self, image, tokens=None, train=False):
        if tokens is None:
            tokens = jnp.zeros((len(image), 1), jnp.int32)
        logits = self.score(self.encode(image), tokens)
        if not train:
            return logits
        found = {"logits": logits}
        if self.looks or self.hard:
            found["attention"] = jnp.full((*tokens.shape, 4), 0.25)
        if self.hard:
            found["attention_log_probability"] = jnp.full(tokens.shape, math.log(0.25))
            found["attention_entropy"] = jnp.full(tokens.shape, math.log(4.0))
        return found

    def encode(self, image, train=False):
        return {"places": jnp.zeros((len(image), 2, 2, 1)) + self.encoder["scale"]}

    def score(self, memory, tokens):
        return self.table[tokens] * memory["places"][:, :1, 0]

    def start(self, memory, length):
        return {"memory": memory, "attention": jnp.full((len(memory["places"]), 2, 2), 0.25)}

    def step(self, cache, token):
        return self.table[token], cache


def make(model=None, of=WORDS, **fields):
    return Captioning(model or Pairs(), of, Inputs((0.0,), (1.0,)), **fields)


def batch(of=WORDS, texts=TEXTS):
    """Three images; the second has one caption of two, the third only fills the batch."""
    tokens = np.stack([of.encode(text, LIMIT) for text in texts])
    captions = np.zeros((2, 20), np.uint8)
    for row, text in zip(captions, texts):
        row[: len(text)] = np.frombuffer(text.encode(), np.uint8)
    return {
        "image": jnp.zeros((3, 8, 8, 3), jnp.uint8),
        "caption": jnp.asarray(np.stack([captions, captions[::-1], captions])),
        "caption_tokens": jnp.asarray(np.stack([tokens, tokens[::-1], tokens])),
        "caption_valid": jnp.array([[True, True], [True, False], [True, True]]),
        "valid": jnp.array([True, True, False]),
    }


def table(*pairs, strength=50.0, size=WORDS.size):
    """Parameters by which each first token is followed by the second."""
    rows = np.zeros((size, size), np.float32)
    for first, second in pairs:
        rows[first, second] = strength
    return {"encoder": {"scale": jnp.ones(())}, "table": jnp.asarray(rows)}


SAYS_STAR = ((WORDS.begin, A), (A, STAR), (STAR, WORDS.end))


def test_the_loss_is_the_mean_over_the_tokens_of_the_first_captions():
    # "a red ring" has three words and an end, "a star" two: all are as likely at the start.
    objective, (_, sums) = make().loss(table(strength=0.0), {}, batch(), KEY)
    assert float(objective.value) == pytest.approx(math.log(WORDS.size), rel=1e-6)
    assert float(objective.means["words"].weight) == 4 + 3
    assert sums == {}
    # A table that knows "a star" by heart: of seven tokens "ring", and one that it may not follow.
    objective, _ = make().loss(table(*SAYS_STAR), {}, batch(), KEY)
    uncertain = math.log(WORDS.size)  # after "red" and "ring" anything may come
    assert float(objective.value) == pytest.approx((50 + 2 * uncertain) / 7, rel=1e-4)


def test_an_end_that_also_pads_counts_once():
    of = tokenizer.Tokenizer(WORDS.definition, WORDS.level, 2, 2, 2, 3)
    objective, _ = make(of=of).loss(table(strength=0.0), {}, batch(of), KEY)
    assert float(objective.means["words"].weight) == 4 + 3


def test_soft_attention_is_to_look_everywhere_once():
    task = make(Pairs(looks=True), attend_everywhere=2.0)
    objective, (_, sums) = task.loss(table(strength=0.0), {}, batch(), KEY)
    # Four places, a quarter of a look at each for each of four and of three tokens.
    assert float(objective.means["everywhere"].value) == pytest.approx(2 * (0 + 0.25**2) / 2)
    assert set(sums) == {"loss/words", "loss/everywhere"}


def test_hard_attention_is_rewarded_by_the_likelihood_of_the_words():
    task = make(Pairs(hard=True), reinforce=0.5, entropy=0.1)
    variables = task.init(KEY, base.image_spec((8, 8, 3)))
    params = variables.pop("params")
    before = {"baseline": {"likelihood": jnp.float32(-1.0)}}
    objective, (state, _) = task.loss(params, before, batch(), KEY)
    likelihood = -math.log(WORDS.size)
    reinforce = -0.5 * (likelihood + 1.0) * math.log(0.25)
    assert float(objective.means["reinforce"].value) == pytest.approx(reinforce, rel=1e-5)
    assert float(objective.means["entropy"].value) == pytest.approx(-0.1 * math.log(4), rel=1e-5)
    assert float(state["baseline"]["likelihood"]) == pytest.approx(-0.9 + 0.1 * likelihood)
    assert set(objective.means) == {"words", "reinforce", "entropy"}


def test_scheduled_sampling_reads_what_the_network_says():
    task = make(scheduled_sampling=1.0)
    tokens = batch()["caption_tokens"][:, 0, :-1]
    read = task._mixed(table(*SAYS_STAR), {}, batch(), tokens, 1.0, KEY, KEY)
    np.testing.assert_array_equal(read[1, :3], [WORDS.begin, A, STAR])
    np.testing.assert_array_equal(read[0, :3], [WORDS.begin, A, STAR])  # in place of "red"
    np.testing.assert_array_equal(
        task._mixed(table(*SAYS_STAR), {}, batch(), tokens, 0.0, KEY, KEY), tokens
    )
    some = jax.vmap(
        lambda key: task._mixed(table(*SAYS_STAR), {}, batch(), tokens, 0.3, key, key)[0, 2]
    )(jax.random.split(KEY, 400))
    assert 0.2 < float((some == STAR).mean()) < 0.4


def frequencies():
    return caption_frequencies.count([[WORDS.tokens(t)] for t in (*TEXTS, "a ring", "red star")])


def test_a_caption_that_is_better_than_the_likeliest_becomes_likelier():
    task = make(self_critical=True, frequencies=frequencies(), decoding=Decoding(length=LIMIT - 1))
    state = task.init(KEY, base.image_spec((8, 8, 3)))
    state.pop("params")
    # The likeliest says "a star"; one in two samples says "a red ring", which image 0 shows.
    pairs = (*SAYS_STAR, (RED, RING), (RING, WORDS.end))
    params = table(*pairs)
    params["table"] = params["table"].at[A, RED].set(49.99)

    def gradient(key):
        def value(params):
            objective, aux = task.loss(params, state, batch(texts=TEXTS[:1] * 2), key)
            assert isinstance(objective, Objective)
            return objective.value, aux[1]["reward"].compute("reward")["reward"]

        return jax.value_and_grad(lambda p: value(p)[0])(params)[1]["table"][A]

    found = sum(gradient(key) for key in jax.random.split(KEY, 8))
    assert float(found[RED]) < 0 < float(found[STAR])  # steps go against it
    np.testing.assert_allclose(found[RED], -found[STAR], rtol=1e-4)


def test_nothing_is_learnt_of_samples_that_are_the_likeliest():
    task = make(self_critical=True, frequencies=frequencies(), decoding=Decoding(length=LIMIT - 1))
    state = task.init(KEY, base.image_spec((8, 8, 3)))
    state.pop("params")
    objective, (_, sums) = task.loss(table(*SAYS_STAR), state, batch(), KEY)
    assert float(objective.value) == 0
    reward = sums["reward"].compute("reward")["reward"]
    assert 0 < reward < 10


def test_the_encoder_stays_for_its_share_of_the_training():
    task = make(frozen_encoder=0.5)
    groups = {"main": Group(optax.sgd(0.1))}
    variables = {"params": {"encoder": {"scale": jnp.ones(())}, "table": jnp.eye(WORDS.size)}}
    state = init_state(variables, groups)
    step = jax.jit(make_train_step(task, groups, seed=0, total=4))
    scales = []
    for _ in range(4):
        state, _ = step(state, batch())
        scales.append(float(state.params["encoder"]["scale"]))
    assert scales[0] == scales[1] == 1.0
    assert len({1.0, *scales[2:]}) == 3


def test_an_encoder_that_stays_for_good_has_no_gradient():
    task = make(frozen_encoder=1.0)
    params = {"encoder": {"scale": jnp.ones(())}, "table": jnp.eye(WORDS.size)}
    gradient = jax.grad(lambda p: task.loss(p, {}, batch(), KEY)[0].value)(params)
    assert float(gradient["encoder"]["scale"]) == 0
    assert float(jnp.abs(gradient["table"]).sum()) > 0


def test_evaluation_counts_all_captions_of_valid_images():
    task = make(decoding=Decoding(length=LIMIT - 1))
    variables = {"params": table(*SAYS_STAR)}
    sums, rows = jax.jit(task.evaluate)(variables, batch(), KEY)
    uncertain = math.log(WORDS.size)
    # "a red ring" and "a star" of the first image, "a star" of the second.
    assert float(sums["loss"].weight) == 4 + 3 + 3
    assert float(sums["loss"].total) == pytest.approx(50 + 2 * uncertain, rel=1e-4)
    kept = {name: np.asarray(value)[:2] for name, value in rows.items()}
    scores = task.score(kept)
    assert set(scores) == set(task.scores())
    assert scores["perplexity"] == pytest.approx(math.exp((50 + 2 * uncertain) / 10), rel=1e-4)
    assert task.texts(kept["found"]) == ["a star", "a star"]
    assert task.references(kept) == [list(TEXTS), ["a star"]]
    assert scores["bleu1"] == pytest.approx(1.0)
    assert scores["rouge_l"] == pytest.approx(1.0)
    assert scores["distinct"] == 0.5


def test_what_is_no_word_is_never_said():
    params = table((WORDS.begin, WORDS.unknown), (A, WORDS.pad), strength=9.0)
    params["table"] = params["table"].at[WORDS.begin, A].set(5.0).at[A, RED].set(5.0)
    task = make(decoding=Decoding(length=3))
    for how in ("greedy", "beam", "sample"):
        found = make(decoding=Decoding(how, 3)).predict({"params": params}, batch(), KEY)
        assert not np.isin(found["tokens"], [WORDS.unknown, WORDS.begin]).any()
        assert found["log_probabilities"].shape == (3, 3)
    said = task.predict({"params": params}, batch(), KEY)["tokens"]
    assert task.texts(np.asarray(said))[0].startswith("a red")


def prediction(task):
    outputs = task.predict({"params": table(*SAYS_STAR)}, batch(), KEY)
    row = {name: np.asarray(value)[0] for name, value in outputs.items()}
    image = np.full((900, 1200, 3), 99, np.uint8)
    return Prediction(image, np.full((8, 8, 3), 99, np.uint8), row, Geometry.identity((900, 1200)))


def test_a_caption_is_told_and_drawn(tmp_path):
    task = make(decoding=Decoding(length=LIMIT - 1))
    found = prediction(task)
    told = report.summary(task, found)
    assert told == {"caption": "a star", "log_probability": pytest.approx(0, abs=1e-5)}
    assert report.cell(task, found) == "a star (0.00)"
    report.write(task, found, tmp_path, "photo")
    assert Image.open(tmp_path / "photo.png").width <= 660
    seen = np.asarray(Image.open(tmp_path / "photo_attention.png"))
    tiles = seen.shape[1] // (160 + 8)
    assert tiles == 3  # the image and two words
    outputs = task.predict({"params": table(*SAYS_STAR)}, batch(), KEY)
    assert report.picture(task, batch(), outputs).shape[2] == 3


def test_an_evaluation_lists_what_was_found_beside_the_truth(tmp_path):
    task = make(decoding=Decoding(length=LIMIT - 1))
    _, rows = task.evaluate({"params": table(*SAYS_STAR)}, batch(), KEY)
    report.figures(task, {name: np.asarray(value)[:2] for name, value in rows.items()}, tmp_path)
    listed = json.loads((tmp_path / "captions.json").read_text())
    assert listed[1] == {"found": "a star", "true": ["a star"]}


def test_a_task_is_created_of_the_facts():
    config = tasks.default_config("captioning")
    config.model.name = "vit_transformer"
    config.model.options = {"max_tokens": 20}
    facts = Facts(vocabulary=WORDS.to_vocabulary())
    with pytest.raises(UserError, match="positions for 20 tokens"):
        tasks.create(config, facts)
    config.data.max_tokens = 21
    task = tasks.create(config, facts)
    assert (task.model.num_classes, task.decoding.length) == (WORDS.size, 20)
    with pytest.raises(UserError, match=r"data\.tokenizer the path of the tokenizer\.json"):
        tasks.create(config, Facts())
    config.captioning.self_critical = True
    with pytest.raises(UserError, match="caption_frequencies"):
        tasks.create(config, facts)


@pytest.mark.parametrize("network", ["show_attend_tell", "vit_transformer"])
@pytest.mark.parametrize("name", ["coco", "flickr8k", "folder"])
def test_statistics_are_frozen_where_there_are_some(name, network):
    config = configuration.load(f"{CONFIGS / name}.py:{network}")
    task = tasks.create(config, Facts(vocabulary=WORDS.to_vocabulary()))
    spec = base.image_spec((32, 32, 3))
    devices = mesh.make(config)
    settled = setup.prepare(config, task, devices, spec, total=9000, steps_per_epoch=300)
    assert ("batch_stats" in settled.variables) == bool(config.optimizer.freeze_statistics)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("captioning.top_p", 1.5, "at most 1"),
        ("captioning.frozen_encoder", 2.0, "at most 1"),
        ("captioning.decoding", "beams", "beam"),
        ("captioning.beams", 0, "beams"),
    ],
)
def test_wrong_keys_are_named(key, value, said):
    config = tasks.default_config("captioning")

    def given():
        configuration.override(config, key, value)
        configuration.validate(config)

    with pytest.raises(UserError, match=said):
        given()


def test_rewards_are_not_for_taught_words():
    config = tasks.default_config("captioning")
    config.captioning.self_critical, config.captioning.label_smoothing = True, 0.1
    with pytest.raises(UserError, match="label_smoothing"):
        configuration.validate(config)


def test_words_of_another_run_are_not_taken_for_these():
    config = tasks.default_config("captioning")
    config.model.name = "nic"
    other = tokenizer.train(["blue", "green", "tree", "house"], "word", size=WORDS.size)
    assert other.size == WORDS.size

    def read(weights, name, preferred=""):
        return pretrained.Weights({}, "run:other", vocabulary=other.to_vocabulary())

    config.model.weights = "run:other"
    with pytest.raises(UserError, match=r"run:other .*model\.reset_classifier=True"):
        make().load_weights(config, {"params": {}}, read)
