"""Users' own parts: the example of docs/extending.md runs, and is found again."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxvision import cli, models, plugins, runs, tasks
from jaxvision.config import Key
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import run

DOCS = Path(__file__).parents[1] / "docs" / "extending.md"
PARTS, CONFIG, FUNCTIONS = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
QUIET = {"eval.pictures": 0, "log.tensorboard": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of the example, trained by the command."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "my_parts.py").write_text(PARTS)
    (folder / "my_config.py").write_text(CONFIG)
    flags = [f"--config.{key}={value}" for key, value in QUIET.items()]
    cli.run(
        [
            "train",
            "--config",
            str(folder / "my_config.py"),
            "--workdir",
            str(folder / "run"),
            *flags,
        ]
    )
    return folder


def test_the_example_trains_evaluates_predicts_and_is_exported(trained, capsys):
    opened = runs.open(trained / "run")
    assert opened.config.plugins == (str(trained / "my_parts.py"),)
    assert opened.facts.class_names == ("horizontal", "vertical")
    assert type(opened.model).__name__ == "TinyNet"
    result, _ = opened.evaluate("test")
    # The Brier score of uniform probabilities is 0.5; stripes are told apart better than that.
    assert result["loss"] < 0.5
    assert result["accuracy"] > 0.6
    (found,) = opened.predict([np.zeros((8, 8, 1), np.uint8)])
    assert found.outputs["probabilities"].sum() == pytest.approx(1, rel=1e-5)
    path = str(trained / "out.safetensors")
    cli.run(["export-torch", path, "--workdir", str(trained / "run")])
    assert load_file(path)["Dense.0.weight"].shape == (2, 8)
    assert "of tiny_net" in capsys.readouterr().out


def test_it_resumes(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    longer = {**QUIET, "train.duration": "11 epochs", "train.allow_changed_config": True}
    config = configuration.load(str(trained / "my_config.py"), longer)
    assert run(config, tmp_path / "run")["accuracy"] > 0.6


def test_a_missing_file_is_named(trained, monkeypatch):
    moved = trained / "elsewhere.py"
    (trained / "my_parts.py").rename(moved)
    try:
        with pytest.raises(UserError, match=r"needs the plugin .*my_parts\.py, which is missing"):
            runs.open(trained / "run")
    finally:
        moved.rename(trained / "my_parts.py")
    with pytest.raises(UserError, match=r"No plugin file '\./my_part\.py'"):
        plugins.load(("./my_part.py",), trained)
    with pytest.raises(UserError, match=r"'no_such_package' cannot be imported"):
        plugins.load(("no_such_package",))


def test_nothing_in_a_run_is_executed(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    inside = tmp_path / "run" / "my_parts.py"
    inside.write_text("raise SystemExit('executed')")
    stored = tmp_path / "run" / "config.json"
    stored.write_text(stored.read_text().replace(str(trained / "my_parts.py"), str(inside)))
    with pytest.raises(UserError, match="code in there is not executed"):
        runs.open(tmp_path / "run")
    with pytest.raises(UserError, match="a module of Python itself"):
        plugins.load(("subprocess",))
    with pytest.raises(UserError, match="defines no system"):
        plugins.resolve("optax:system")


def test_functions_stand_in_a_config(tmp_path):
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    config = configuration.load(str(tmp_path / "functions.py"), QUIET)
    result = run(config, tmp_path / "run")
    stored = runs.open(tmp_path / "run").config
    assert stored.classification.loss.__name__ == "huber"
    assert stored.optimizer.name.__name__ == "scale_by_yogi"
    again, _ = runs.open(tmp_path / "run").evaluate()
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5)
    config.classification.loss = lambda logits, targets: None
    with pytest.raises(UserError, match="top level of a module"):
        configuration.to_json(config)


def test_names_that_are_taken_are_refused():
    with pytest.raises(UserError, match="a task 'classification' already"):
        tasks.register("classification")(object)
    with pytest.raises(UserError, match="a model 'resnet50' already"):
        models.register("resnet50")(type("Other", (), {}))


def test_a_task_of_ones_own(monkeypatch):
    monkeypatch.setattr(tasks.TASKS, "_entries", dict(tasks.TASKS._entries))

    @tasks.register("depth", keys={"largest": Key(10.0, "metres that are measured", least=0)})
    class Depth:
        pass

    config = tasks.default_config("depth")
    assert config.task == "depth"
    assert config.depth.largest == 10.0
    config.depth.largest = -1.0
    with pytest.raises(UserError, match=r"'depth.largest' is a number at least 0"):
        configuration.validate(config)
    assert tasks.TASKS["depth"].task() is Depth
