"""`jaxvision classify` and `jaxvision retrieve` on the built-in digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from jaxvision import cli
from jaxvision.commands import features
from jaxvision.commands.retrieve import one_of_each
from jaxvision.errors import UserError
from jaxvision.train import run

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")


def classify(method, tmp_path, *options):
    arguments = ["classify", method, "--json", str(tmp_path / "result.json"), *options]
    cli.run([str(a) for a in arguments])
    return json.loads((tmp_path / "result.json").read_text())


@pytest.fixture(scope="module")
def splits():
    config = features.configured(DIGITS, None, {})
    return features.read_split(config, "train"), features.read_split(config, "test")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify") / "run"
    overrides = {"train.duration": "4 epochs", "eval.every": "4 epochs", "data.augment": "[]"}
    run(features.configured(DIGITS, None, overrides), folder)
    return folder


def test_a_split_as_arrays(splits):
    train, test = splits
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.dtype == np.uint8
    assert test.class_names == tuple("0123456789")
    config = features.configured(DIGITS, None, {})
    few = features.read_split(config, "test", 300)
    np.testing.assert_array_equal(few.images, test.images[:300])
    np.testing.assert_array_equal(few.labels, test.labels[:300])
    with pytest.raises(UserError, match="Cannot read -1 images"):
        features.read_split(config, "test", -1)


def test_knn_equals_sklearn(splits, tmp_path, capsys):
    found = classify("knn", tmp_path, "--config", DIGITS, "--metric", "l1", "--k", 3)
    (train, test), peer = splits, KNeighborsClassifier(3, metric="manhattan", algorithm="brute")
    peer.fit(features.pixels(train.images).astype(float), train.labels)
    expected = peer.score(features.pixels(test.images).astype(float), test.labels)
    assert found["accuracy"] == pytest.approx(expected, abs=1 / 360)
    assert found["accuracy"] > 0.97
    out = capsys.readouterr().out
    assert "3 nearest neighbours (l1, uniform votes) on 64 pixels" in out
    assert f"accuracy {found['accuracy']:.2%}" in out


def test_svm_equals_sklearn(splits, tmp_path):
    found = classify("svm", tmp_path, "--config", DIGITS, "--c", 0.1)
    (train, test), peer = splits, LinearSVC(C=0.1, dual=False, tol=1e-8)
    peer.fit(features.pixels(train.images).astype(float), train.labels)
    expected = peer.score(features.pixels(test.images).astype(float), test.labels)
    assert found["accuracy"] == pytest.approx(expected, abs=1 / 360)
    assert found["converged"]


@pytest.mark.parametrize(
    ("method", "options", "least"),
    [
        ("softmax", (), 0.93),
        pytest.param("svm", ("--loss", "weston_watkins"), 0.93, marks=pytest.mark.slow),
        ("hog-svm", ("--cell", 2), 0.9),
        ("bow-svm", ("--words", 50, "--step", 8), 0.9),
        pytest.param(
            *("bow-svm", ("--words", 50, "--step", 8, "--kernel", "intersection"), 0.9),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_method_learns_the_digits(method, options, least, tmp_path):
    picture = tmp_path / "picture.png"
    found = classify(method, tmp_path, "--config", DIGITS, "--picture", picture, *options)
    assert found["accuracy"] > least
    assert (found["train"], found["test"], found["method"]) == (1437, 360, method)
    assert Image.open(picture).mode == "RGB"


@pytest.mark.slow
def test_deep_features_of_a_run(workdir, splits, tmp_path):
    vectors = features.deep(workdir, splits[1].images)
    assert vectors.shape == (360, 64)
    assert np.isfinite(vectors).all()
    for method in ("knn", "softmax"):
        found = classify(method, tmp_path, "--features", workdir, "--train", 1000, "--test", 200)
        assert found["accuracy"] > 0.93
        assert (found["train"], found["test"], found["dimensions"]) == (1000, 200, 64)


def test_retrieve_draws_queries_and_neighbours(workdir, tmp_path, capsys):
    for name, origin in (("pixels", ("--config", DIGITS)), ("deep", ("--features", str(workdir)))):
        output = tmp_path / f"{name}.png"
        cli.run(["retrieve", *origin, "--k", "4", "--queries", "3", "--output", str(output)])
        width, height = Image.open(output).size
        assert (width, height) == (5 * 168, 3 * 186)
        said = capsys.readouterr().out
        assert float(said.split("%")[0]) > 80
        assert "of the 4 neighbours of 3 test images" in said


def test_queries_are_of_different_classes():
    labels = np.array([1, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(one_of_each(labels, 4), [2, 0, 4, 5])
    assert len(one_of_each(labels, 99)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("svn", "--config", DIGITS), r"Unknown method 'svn'\. Did you mean .*'svm'"),
        (("knn",), "Give --config FILE"),
        (("knn", "--config", DIGITS, "--metric", "l3"), r"Unknown metric 'l3'"),
        (("knn", "--config", DIGITS, "--k", "2000"), "k is from 1 to 1437"),
        (("svm", "--config", DIGITS, "--loss", "hinge"), r"Did you mean 'squared_hinge'"),
        (("bow-svm", "--config", DIGITS, "--kernel", "rbf"), "Valid: intersection, linear"),
        (("knn", "--config", DIGITS, "--weights", "distances"), r"Did you mean 'distance'"),
        (("bow-svm", "--config", DIGITS, "--words", "0"), "--words=0 must be at least 1"),
        (("hog-svm", "--config", DIGITS, "--features", "x"), "leave --features out"),
        (("knn", "--features", "/nowhere"), "No run in /nowhere"),
        (("knn", "--config", DIGITS, "--matric", "l1"), "Did you mean 'metric'"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        cli.run(["classify", *arguments])
