"""`jaxvision probe`, and the linear probe beside scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxvision import cli
from jaxvision.classical.probes import linear_probe
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
    cli._dispatch([*command, "--train", "600", "--json", str(file)])
    found, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert [set(one) for one in (found["trained"], found["pixels"])] == [
        {"knn_accuracy", "linear_accuracy", "rate"}
    ] * 2
    assert found["pixels"]["knn_accuracy"] > 0.9
    assert found["random weights"] != found["trained"]
    assert f"trained: knn_accuracy {found['trained']['knn_accuracy']:.4f}" in printed
    assert printed.startswith("600 images of train to learn from, 360 of test to test on, 24 ")
    with pytest.raises(UserError, match="--k=0 must be at least 1"):
        cli._dispatch([*command, "--k", "0"])
