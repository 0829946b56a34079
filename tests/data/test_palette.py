"""Palettes: learned of what training sees, kept as a fact, read from files."""

import json

import numpy as np
import pytest

from jaxvision import tasks
from jaxvision.data import palette
from jaxvision.data.facts import Facts
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError


def stream(wanted, train=True, known=()):
    config = tasks.default_config("pretraining")
    config.data.name, config.data.channels = "digits", 1
    config.data.palette = wanted
    spec = config.data.train if train else config.data.test
    return open_stream(config.data, spec, seed=3, train=train, annotations=(), palette=known)


def test_colours_are_learned_where_training_begins():
    found = stream(5).palette
    assert found == stream(5).palette  # decided by the seed
    values = np.asarray(found)
    assert values.shape == (5, 1)
    assert np.all(np.diff(values[:, 0]) > 0)  # from dark to light
    assert 0 <= values.min() < 10 < 200 < values.max() <= 255
    # Each is the mean of the pixels that are nearest to it.
    images = np.concatenate([stream(0).batch(range(1000))["image"].ravel()])
    nearest = np.abs(images[:, None] - values[:, 0]).argmin(1)
    means = [images[nearest == number].mean() for number in range(5)]
    np.testing.assert_allclose(values[:, 0], means, atol=3)
    assert stream(0).palette == ()
    assert stream(5, train=False).palette == ()
    assert stream(5, known=((1.0,), (2.0,))).palette == ((1.0,), (2.0,))


def test_more_colours_than_there_are():
    with pytest.raises(
        UserError, match=r"data.palette=300: the pixels of 'train' have \d\d colours"
    ):
        stream(300)


def test_a_palette_is_a_fact(tmp_path):
    facts = Facts.of_stream(stream(4))
    assert len(facts.palette) == 4
    again = Facts.from_json(facts.to_json())
    assert again == facts
    assert again.digest() != Facts().digest()
    file = tmp_path / "facts.json"
    file.write_text(facts.to_json())
    assert palette.load(file) == facts.palette
    assert stream(str(file), train=False).palette == facts.palette
    damaged = json.loads(facts.to_json()) | {"palette": [[1, 2], [3]]}
    with pytest.raises(UserError, match="facts of the data are damaged"):
        Facts.from_json(json.dumps(damaged))


def test_colours_of_transformers(tmp_path):
    """From -1 to 1 there, from 0 to 255 here."""
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"clusters": [[-1, 0, 1], [0.5, -0.5, 0]], "do_resize": True}))
    assert palette.load(file) == ((0.0, 127.5, 255.0), (191.25, 63.75, 127.5))
    file.write_text(json.dumps({"do_resize": True}))
    with pytest.raises(UserError, match="has no colours; expected `palette`"):
        palette.load(file)
    file.write_text(json.dumps({"clusters": [[1, 2], [3]]}))
    with pytest.raises(UserError, match=r"The colours of .* are damaged: .*as many numbers each"):
        palette.load(file)
    with pytest.raises(UserError, match=r"nothing\.json: No such file or directory"):
        palette.load(tmp_path / "nothing.json")
