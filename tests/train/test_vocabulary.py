"""A run learns its words once: resuming, evaluating, other splits take them from its facts."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import losses, models, runs, tasks
from jaxvision.data import sources
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.metrics import Mean
from jaxvision.tasks import base
from jaxvision.tasks.inputs import Inputs
from jaxvision.train import run

WORDS = ("red", "green", "blue", "dark", "bright")


class Told:
    """Images of one colour, with two captions each; notes which splits were asked for theirs."""

    class_names = ()

    def __init__(self, split, asked):
        self.split, self.asked = split, asked

    def __len__(self):
        return 12

    def __getitem__(self, index):
        image = np.full((2, 2, 3), 20 * index, np.uint8)
        return {"image": image, "captions": self.said(index)}

    def said(self, index):
        extra = "unheard of" if self.split == "test" else "thing"
        return f"A {WORDS[index % 5]} {extra}.", f"{WORDS[index % 5]}, {WORDS[index % 3]}"

    def name(self, index):
        return f"{self.split}-{index}"

    def captions(self):
        self.asked.append(self.split)
        return [self.said(index) for index in range(len(self))]


@dataclass(frozen=True)
class Naming(base.Task):
    """Which words the drawn caption has."""

    annotations: ClassVar = ("caption",)
    metrics: ClassVar = {"loss": base.Metric("lower", fatal=True)}
    model: Any
    inputs: Inputs
    tokenizer: Tokenizer

    @classmethod
    def create(cls, config, facts):
        known = Tokenizer.of(facts.vocabulary)
        network = models.create("mlp", known.size, hidden=(4,))
        return cls(network, Inputs.create(config, facts), known)

    def errors(self, logits, batch):
        there = jax.nn.one_hot(batch["caption_tokens"][:, 0], self.tokenizer.size).max(1)
        return jnp.square(logits - there).mean(-1)

    def loss(self, params, model_state, batch, key):
        image = self.inputs.evaluate(batch["image"])
        logits, model_state = base.apply_train(self.model, params, model_state, image, key)
        valid = batch["valid"].astype(jnp.float32)
        mean = losses.masked_ratio(self.errors(logits, batch), valid, batch["valid"])
        return losses.Objective({"main": mean}), (model_state, {})

    def evaluate(self, variables, batch, key):
        logits = base.apply_eval(self.model, variables, self.inputs.evaluate(batch["image"]))
        return {"loss": Mean.of(self.errors(logits, batch), batch["valid"])}, {}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """(a function that trains, splits whose captions were asked for, where runs are)."""
    asked = []
    monkeypatch.setitem(sources.SOURCES._entries, "told", lambda data: lambda s: Told(s, asked))
    monkeypatch.setitem(tasks.TASKS._entries, "naming", tasks._Given(Naming, {}, None))

    def train(steps, name="run", **keys):
        config = tasks.default_config("naming")
        config.data.source, config.data.validation = "told", "validation"
        config.model.name, config.schedule.name = "mlp", "constant"
        config.train.batch_size, config.train.duration = 4, steps
        config.eval.every, config.eval.pictures, config.log.tensorboard = 2, 0, False
        for key, value in keys.items():
            config.data[key] = value
        return run(config, tmp_path / name)

    return train, asked, tmp_path


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_words_are_learned_once_and_a_resumed_run_goes_on_with_the_same_bits(trained, level):
    train, asked, folder = trained
    keys = {"tokenizer": level, "vocabulary_size": 280}
    whole = train(6, "whole", **keys)
    assert asked == ["train"]
    train(2, **keys)
    assert asked == ["train"] * 2
    assert train(6, **keys) == whole
    assert asked == ["train"] * 2
    variables = [runs.open(folder / name).variables for name in ("whole", "run")]
    jax.tree.map(np.testing.assert_array_equal, *variables)
    facts = [(folder / name / "facts.json").read_bytes() for name in ("whole", "run")]
    assert facts[0] == facts[1]
    opened = runs.open(folder / "run")
    assert opened.task.tokenizer == Tokenizer.of(json.loads(facts[0])["vocabulary"])
    assert opened.evaluate("test")[0]["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert opened.evaluate("train")[0]["loss"] > 0
    assert asked == ["train"] * 2
