"""`jaxvision probe`, and the linear probe beside scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxvision import cli
from jaxvision.classical.probes import linear_probe
from jaxvision.commands import probe
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import run

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_linear_probe_comes_to_what_logistic_regression_does():
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    found = linear_probe(x[:1200], y[:1200], x[1200:], y[1200:], 10, epochs=30)
    peer = LogisticRegression(max_iter=500).fit(x[:1200] / 16, y[:1200])
    expected = peer.score(x[1200:] / 16, y[1200:])
    assert found.accuracy == pytest.approx(expected, abs=0.02)
    assert found.accuracy > 0.9
    # One rate alone does what it does among others.
    alone = linear_probe(x[:1200], y[:1200], x[1200:], y[1200:], 10, 30, (found.rate,))
    assert alone.accuracy == pytest.approx(found.accuracy, abs=0.005)


def test_a_run_is_probed(tmp_path, capsys):
    workdir = tmp_path / "run"
    run(configuration.load(str(CONFIGS / "pretraining" / "digits_dino.py:smoke")), workdir)
    file, data = tmp_path / "found.json", str(CONFIGS / "classification" / "digits.py")
    capsys.readouterr()
    command = ["probe", str(workdir), "--config", data, "--baselines", "--epochs", "5"]
    picture = tmp_path / "map.png"
    cli.run([*command, "--train", "600", "--json", str(file), "--map", str(picture)])
    found, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert [set(one) for one in (found["trained"], found["pixels"])] == [
        {"knn_accuracy", "linear_accuracy", "rate"}
    ] * 2
    assert found["pixels"]["knn_accuracy"] > 0.9
    assert found["random weights"] != found["trained"]
    assert f"trained: knn_accuracy {found['trained']['knn_accuracy']:.4f}" in printed
    assert printed.startswith("600 images of train to learn from, 360 of test to test on, 24 ")
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10  # points of ten colours
    digit = tmp_path / "digit.png"
    Image.fromarray(load_digits().images[0].astype(np.uint8) * 16).save(digit)
    looked = ["visualize", "attention", str(digit), "--workdir", str(workdir)]
    cli.run([*looked, "--output", str(tmp_path / "attention.png")])
    assert "attention of 1 image" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"Unknown plane in --by 'umap'"):
        cli.run([*command, "--by", "umap"])
    with pytest.raises(UserError, match="wants two images or more to learn from, not 1"):
        linear_probe(np.zeros((1, 2)), np.zeros(1, int), np.zeros((1, 2)), np.zeros(1, int), 2)
    with pytest.raises(UserError, match="--k=0 must be at least 1"):
        cli.run([*command, "--k", "0"])


def test_groups_that_are_far_apart_stay_so_in_a_plane():
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = (random.normal(size=(40, 6)) + 20 * labels[:, None]).astype(np.float32)
    for plane in probe._PLANES.values():
        found = plane(features)
        middle = np.stack([found[labels == one].mean(0) for one in (0, 1)])
        nearest = np.linalg.norm(found[:, None] - middle, axis=-1).argmin(1)
        np.testing.assert_array_equal(nearest, labels)
