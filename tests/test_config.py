"""Configuration: closed, typed, explained."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxvision import cli, config_files, tasks
from jaxvision.config import steps_of
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import configuration


def write(tmp_path, body: str):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxvision.tasks import default_config\n"
        "def get_config(variant=''):\n"
        "    config = default_config()\n" + body + "    return config\n"
    )
    return str(path)


def test_every_key_has_a_meaning_and_survives_json():
    config = tasks.default_config()
    assert all(len(key.meaning) > 10 for key in tasks.schema("classification").keys.values())
    again = configuration.from_json(configuration.to_json(config))
    assert configuration.flatten(again) == configuration.flatten(config)
    assert configuration.differences(config, again) == {}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("    config.train.batchsize = 3\n", ["batchsize", "train.batch_size"]),
        ("    config.optimiser.name = 'sgd'\n", ["optimiser", "optimizer.name"]),
        ("    config.data.on_corrupt = 'skp'\n", ["'skp'", "'skip'"]),
        ("    config.train.batch_size = 'many'\n", ["train.batch_size", "'many'", "int"]),
        ("    config.train.duration = '5 epoch s'\n", ["train.duration", "5 epoch s", "epochs"]),
        ("    config.data.mean = (0.1, 0.2)\n", ["data.mean", "2 values", "3 channels"]),
        ("    config.data.threads = -1\n", ["data.threads", "at least 0", "-1"]),
        ("    config.data.test = ''\n", ["data.test", "data.validation"]),
        ("    config.optimizer.accumulate = 3\n", ["batch_size=128", "accumulate=3"]),
        ("    config.optimizer.ema = 1.0\n", ["optimizer.ema", "below 1", "1.0"]),
        ("    config.seed = -1\n", ["'seed'", "at least 0", "-1"]),
        ("    config.seed = 2**32\n", ["'seed'", "below 4294967296"]),
        ("    config.optimizer.learning_rate = -0.1\n", ["learning_rate", "at least 0", "-0.1"]),
        ("    config.optimizer.learning_rate = float('nan')\n", ["a finite number", "nan"]),
        ("    config.data.std = (0.2, 0.0, 0.2)\n", ["data.std", "above 0", "got 0.0"]),
        ("    config.data.mean = (0.2, 'x', 0.2)\n", ["data.mean", "a number", "'x'"]),
        (
            "    config.optimizer.lr_multipliers = ('head', 3)\n",
            ["pairs (regex, factor)", "'head'"],
        ),
        ("    config.classification.class_weights = (1, -1)\n", ["class_weights", "got -1"]),
        ("    config.train.profile = (5,)\n", ["train.profile", "(first, last)", "(5,)"]),
    ],
)
def test_mistakes_in_a_config_file_name_the_key_and_the_remedy(tmp_path, body, named):
    with pytest.raises(UserError) as error:
        configuration.load(write(tmp_path, body))
    assert all(part in str(error.value) for part in named), str(error.value)


def test_numbers_have_limits():
    """A negative rate or a weight below zero is met at the door, in every group of keys."""
    others = {"data.channels"}  # 1 or 3
    for task in tasks.TASKS:
        for path, key in tasks.schema(task).keys.items():
            number = type(key.default) in (int, float) and not key.is_duration
            if number and path not in others:
                assert key.least is not None or key.above is not None, path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(variant):\n    x = = 3\n", r"mine\.py, line 2: .*: x = = 3"),
        ("import nothing_of_that_name\n", r"mine\.py, line 1: ModuleNotFoundError: .*\n  import"),
        ("x = 1 / 0\n", r"mine\.py, line 1: ZeroDivisionError: division by zero\n  x = 1 / 0"),
        (
            "def get_config(variant):\n    return nme\n",
            r"line 2: NameError: name 'nme'.*\n  return",
        ),
        ("def get_config(variant=''):\n    pass\n", "get_config returns NoneType; expected"),
        ("def get_config(variant=''):\n    return {}\n", "get_config returns dict; expected"),
        ("x = 3\n", r"defines no get_config\(variant\)"),
        ("get_config = 3\n", r"defines no get_config\(variant\)"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(variant=''):\n    return ConfigDict({'task': 'segmentation'})\n",
            r"lacks keys; start from default_config\('segmentation'\)",
        ),
    ],
)
def test_a_config_file_that_fails_names_the_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message):
        configuration.load(str(tmp_path / "mine.py"))


def test_get_config_needs_no_argument(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxvision.tasks import default_config\n"
        "def get_config():\n    return default_config()\n"
    )
    assert configuration.load(str(path)).task == "classification"
    with pytest.raises(UserError, match="has no variants, so none is 'small'"):
        configuration.load(f"{path}:small")


def test_overrides_are_parsed_by_the_type_of_the_key(tmp_path):
    config = configuration.load(
        write(tmp_path, ""),
        {
            "optimizer.learning_rate": "1",
            "train.duration": "50",
            "eval.every": "2 epochs",
            "optimizer.nesterov": "true",
            "data.mean": "[0.1, 0.2, 0.3]",
            "data.options.size": "32",
            "model.options.hidden": "(8, 8)",
            "data.dir": "123",
        },
    )
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.train.duration == 50
    assert config.eval.every == "2 epochs"
    assert config.optimizer.nesterov is True
    assert config.data.mean == (0.1, 0.2, 0.3)
    assert config.data.options.to_dict() == {"size": 32}
    assert config.model.options.to_dict() == {"hidden": (8, 8)}
    assert config.data.dir == "123"


@pytest.mark.parametrize("key", ["optimizer.learning_rte", "lr", "model.nam"])
def test_an_unknown_override_is_refused(tmp_path, key):
    with pytest.raises(UserError, match="Unknown config key"):
        configuration.load(write(tmp_path, ""), {key: "1"})


def test_a_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.txt is no Python file"):
        configuration.load(str(tmp_path / "notes.txt"))


def test_a_missing_file_names_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean 'classification/digits'"):
        configuration.load("configs/classification/digts.py")
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(UserError, match=r"No config file 'mne.py'. Did you mean 'mine.py'"):
        configuration.load("mne.py")


@pytest.mark.parametrize(
    "name", ["digits", "classification/digits", "digits.py", "configs/classification/digits.py"]
)
def test_configs_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = configuration.load(f"{name}:smoke")
    assert config.data.name == "digits"


def test_names_of_configs_that_are_not_unique_are_refused(tmp_path, monkeypatch):
    for task in ("classification", "segmentation"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "folder.py").write_text('"""First.\n\nSecond."""\nraise SystemExit')
    monkeypatch.setattr(config_files, "folder", lambda: tmp_path)
    with pytest.raises(UserError, match="classification/folder, segmentation/folder"):
        config_files.find("folder")
    assert config_files.find("segmentation/folder").parent.name == "segmentation"
    assert config_files.first_line(config_files.find("segmentation/folder")) == "First."


@pytest.mark.slow
def test_an_installed_package_has_the_configs(tmp_path):
    root = Path(__file__).parents[1]
    ignored = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "tests")
    shutil.copytree(root, tmp_path / "source", ignore=ignored)  # where building leaves its traces
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "source")], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"jaxvision/configs/{name}.py" for name in config_files.shipped()} <= set(names)


def test_a_config_is_copied_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.run(["config", "copy", "digits"])
    assert configuration.load("digits.py:smoke").data.name == "digits"
    with pytest.raises(UserError, match="is there already"):
        cli.run(["config", "copy", "digits"])
    with pytest.raises(UserError, match=r"neither a folder nor a file"):
        cli.run(["config", "copy", "digits", "nowhere/else"])
    cli.run(["config", "copy", "shapes_unet", "mine.py"])
    assert (tmp_path / "mine.py").read_text() == config_files.find("shapes_unet").read_text()
    cli.run(["info", "configs", "shapes*"])
    assert "segmentation/shapes_unet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("duration", "steps"),
    [(500, 500), ("500", 500), ("500 steps", 500), ("3 epochs", 21), ("1 epoch", 7),
     ("0.5 epochs", 4), ("10%", 100), ("never", 0), ("2.5%", 25),
     ("0.01%", 1), ("0%", 0), ("0.01 epochs", 1)],
)  # fmt: skip
def test_durations(duration, steps):
    assert steps_of(duration, steps_per_epoch=7, total=1000) == steps


@pytest.mark.parametrize("duration", ["soon", "5 apples", "-3", "1..2 epochs", ".", ""])
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(UserError, match="is no duration"):
        steps_of(duration, steps_per_epoch=7, total=1000)


def test_differences_leave_out_what_a_resumed_run_may_change():
    old, new = tasks.default_config(), tasks.default_config()
    new.train.log_every = 7
    new.mesh.fsdp = 2
    assert configuration.differences(old, new) == {}
    new.optimizer.learning_rate = 0.5
    new.data.mean = (0.1,)
    assert configuration.differences(old, new) == {
        "optimizer.learning_rate": (1e-3, 0.5),
        "data.mean": ([0.5], [0.1]),
    }


def test_a_damaged_config_json_is_refused():
    with pytest.raises(UserError, match="not valid JSON"):
        configuration.from_json("{")
    with pytest.raises(UserError, match=r"'plugins' is a list of names, got 3"):
        configuration.from_json('{"plugins": 3}')
    with pytest.raises(UserError, match="Did you mean 'segmentation'"):
        configuration.from_json('{"task": "segmentatoin"}')
    stored = json.dumps({"train": {"batch_size": 5}, "gone": 3})
    assert (
        configuration.from_json(stored).train.batch_size == 5
    )  # older and newer keys are no error


def mutations(text, count):
    """The text with bytes changed, cut off or doubled, and with values of other types."""
    rng, raw = np.random.default_rng(0), text.encode()
    for _ in range(count):
        kind, place = int(rng.integers(4)), int(rng.integers(len(raw)))
        if kind == 0:
            yield raw[:place] + bytes([int(rng.integers(256))]) + raw[place + 1 :]
        elif kind == 1:
            yield raw[:place]
        elif kind == 2:
            yield raw[:place] + raw[place // 2 :]
        else:
            tree = json.loads(text)
            node, key = tree, rng.choice(sorted(tree))
            while isinstance(node[key], dict) and node[key] and rng.integers(3):
                node, key = node[key], rng.choice(sorted(node[key]))
            values = [None, 3, -1.5, "x", [], {}, [[1]], {"a": None}, True, 10**30]
            node[key] = values[int(rng.integers(len(values)))]
            yield json.dumps(tree).encode()


CONFIG = configuration.to_json(tasks.default_config())
FACTS = Facts(("a", "b"), {"train": 3}, ("l", "r"), ((0, 1),), {"words": ["a"]}).to_json()
PARSERS = {
    "config": (CONFIG, configuration.from_json),
    "facts": (FACTS, Facts.from_json),
}


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_of_a_run_are_read_or_refused(name):
    text, parse = PARSERS[name]
    refused = 0
    for content in mutations(text, 300):
        try:
            parse(content)
        except UserError:
            refused += 1
    assert refused > 50
