"""Configuration: closed, typed, explained."""

import json

import pytest

from jaxvision import tasks
from jaxvision.config import steps_of
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
        ("    config.train.profile = (5,)\n", ["train.profile", "(first, last)", "(5,)"]),
    ],
)
def test_mistakes_in_a_config_file_name_the_key_and_the_remedy(tmp_path, body, named):
    with pytest.raises(UserError) as error:
        configuration.load(write(tmp_path, body))
    assert all(part in str(error.value) for part in named), str(error.value)


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
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean 'configs/digits.py'"):
        configuration.load("configs/digts.py")


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
