"""`jaxvision search` on the built-in digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvision import cli
from jaxvision.commands.features import Split
from jaxvision.commands.search import chosen, divided
from jaxvision.errors import UserError
from jaxvision.search import Round

DIGITS = str(Path(__file__).parents[2] / "configs" / "classification" / "digits.py")


def search(*arguments):
    cli.run(["search", "--config", DIGITS, *map(str, arguments)])


@pytest.mark.slow
def test_both_strategies_are_reported(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    small = ("--rounds", 2, "--children", 2, "--steps", 3, "--train", 100)
    search(*small, "--output", tmp_path)
    found = json.loads((tmp_path / "search.json").read_text())
    assert list(found) == ["reinforce", "random"]
    for one in found.values():
        assert len(one["mean"]) == len(one["best_of_round"]) == 2
        assert 0 <= one["accuracy"] <= 1
    assert (tmp_path / "search.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert "for 3 steps on 70 images and rewarded by 30" in out
    assert "reinforce round   2/2" in out
    assert f"random: {found['random']['best']}: " in out


def test_images_are_halved_until_they_are_small():
    labels = np.arange(10)
    images = np.broadcast_to(labels[:, None, None, None], (10, 33, 40, 1)).astype(np.uint8)
    data = divided(Split(images, labels, tuple(map(str, labels))), seed=0)
    assert data.train_images.shape == (7, 8, 10, 1)
    assert data.valid_images.shape == (3, 8, 10, 1)
    both = np.concatenate([data.train_labels, data.valid_labels])
    assert sorted(both) == list(labels)
    np.testing.assert_allclose(data.valid_images[:, 0, 0, 0] * 255, data.valid_labels, 1e-6)


def test_one_lucky_result_does_not_decide():
    often, lucky = np.array([0, 1]), np.array([1, 1])
    rounds = [
        Round(np.stack([often, often]), np.array([0.9, 0.9], np.float32)),
        Round(np.stack([often, lucky]), np.array([0.9, 0.91], np.float32)),
        Round(np.zeros((2, 2), int), np.array([0.1, 0.1], np.float32)),
    ]
    np.testing.assert_array_equal(chosen(rounds), often)


def test_counts_are_positive():
    with pytest.raises(UserError, match="--rounds is at least 1, got 0"):
        search("--rounds", 0)
