"""The command line as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import cli
from jaxvision.errors import UserError

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "jaxvision", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        **options,
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = command(
        "train", "--config", DIGITS, "--workdir", folder, "--config.model.name=mlp",
        "--config.train.duration=4 epochs", "--config.data.augment=[]",
        "--config.eval.every", "2 epochs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mlp: 7,510 parameters" in done.stdout
    assert "1 cpu device" in done.stdout
    assert "Compiled the training step in" in done.stdout
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten digits as PNG files, named after their class."""
    from jaxvision.data.builders.digits import load

    folder = tmp_path_factory.mktemp("pictures")
    images, labels = load()
    for digit in range(10):
        image = images[np.flatnonzero(labels == digit)[0]]
        Image.fromarray(np.round(image * 255.0 / 16).astype(np.uint8)).save(folder / f"{digit}.png")
    return folder


def test_evaluate_prints_and_writes_the_metrics(workdir, tmp_path, capsys):
    cli.run(["evaluate", "--workdir", str(workdir), "--json", str(tmp_path / "result.json")])
    output = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    stored = [json.loads(s) for s in (workdir / "metrics.jsonl").read_text().splitlines()]
    test = next(r for r in stored if r["split"] == "test")
    assert result["accuracy"] == test["accuracy"]
    assert f"{round(360 * result['accuracy'])} of 360 correct" in output
    cli.run(["evaluate", "--workdir", str(workdir), "--split", "test[:50]"])
    assert "of 50 correct" in capsys.readouterr().out
    cli.run(["evaluate", "--workdir", str(workdir), "--checkpoint", "44"])
    assert "of 360 correct" in capsys.readouterr().out


def test_a_line_is_split_as_a_shell_does():
    with pytest.raises(UserError, match=r"No run in a b: it has no config.json"):
        cli.run("evaluate --workdir 'a b'")
    with pytest.raises(UserError, match=r"cannot be split: No closing quotation"):
        cli.run("evaluate --workdir 'a b")


def test_predict_writes_table_json_and_pictures(workdir, pictures, tmp_path, capsys):
    cli.run(
        ["predict", "--workdir", str(workdir), str(pictures), "--output", str(tmp_path / "out")]
    )
    output = capsys.readouterr().out
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    right = sum(p["classes"][0]["name"] == Path(p["file"]).stem for p in predictions)
    assert right >= 8
    assert len(predictions) == 10
    assert "prediction" in output
    assert Image.open(tmp_path / "out" / predictions[0]["picture"]).size >= (160, 160)


def test_predict_names_unreadable_files_and_goes_on(workdir, pictures, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    cli.run(
        ["predict", "--workdir", str(workdir), str(tmp_path / "bad.png"), str(pictures / "1.png")]
    )
    output = capsys.readouterr().out
    assert "unreadable" in output
    with pytest.raises(UserError, match="None of the images"):
        cli.run(["predict", "--workdir", str(workdir), str(tmp_path / "bad.png")])


def test_predicting_masks_writes_overlay_and_palette(tmp_path, capsys):
    config = ROOT / "configs" / "segmentation" / "shapes_unet.py"
    cli.run(["train", "--config", f"{config}:smoke", "--workdir", str(tmp_path / "run")])
    photo = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    cli.run(
        [
            "predict",
            f"--workdir={tmp_path / 'run'}",
            f"--output={tmp_path / 'out'}",
            str(tmp_path / "photo.jpg"),
        ]
    )
    (prediction,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sum(c["share"] for c in prediction["classes"]) == pytest.approx(1, abs=1e-4)
    indices = Image.open(tmp_path / "out" / "photo-classes.png")
    assert indices.mode == "P"
    assert indices.size == (70, 45)
    assert np.asarray(indices).max() <= 10
    width, height = Image.open(tmp_path / "out" / "photo.png").size  # over its legend
    assert width >= 70
    assert height > 45


@pytest.mark.parametrize("topic", ["devices", "models", "data", "config"])
def test_info(topic, capsys):
    cli.run(["info", topic])
    output = capsys.readouterr().out
    expected = {
        "devices": "jaxlib",
        "models": "resnet20_cifar",
        "data": "shapes",
        "config": "learning_rate",
    }
    assert expected[topic] in output


def test_data_prepare_prepares_the_built_in_ones(tmp_path, capsys):
    cli.run(["data", "prepare", "digits", "--data-dir", str(tmp_path)])
    assert "train 1437" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.array_record*"))
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        cli.run(["data", "prepare", "cifar1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--config", "configs/classification/digts.py"],
            "Did you mean 'classification/digits'",
        ),
        (["train", "--config", DIGITS, "--workdr", "x"], "Did you mean 'workdir'"),
        (["train", "--config", DIGITS, "--config.trian.duration=3"], "Unknown config key"),
        (
            ["train", "--config", DIGITS, "--config.optimizer.lr=1"],
            "'optimizer.lr'. Did you mean 'optimizer.learning_rate'?",
        ),
        (
            ["train", "--config", DIGITS, "--config.train.epochs=9"],
            "'train.epochs'. Did you mean 'train.duration'?",
        ),
        (["trian", "--config", DIGITS], "Unknown command 'trian'. Did you mean 'train'"),
        (["train", "--config", DIGITS, "--config.seed"], "needs a value"),
        (["train", "--config", DIGITS, "--config.seed=-1"], "'seed' is a number at least 0"),
        (["train", "--config", DIGITS, "--workdir", "gs://bucket/run"], "a folder of this machine"),
        (["train", "--config", DIGITS, "--workdir", ""], "--workdir is empty"),
        (["train", "--config", DIGITS, "--workdir", "a\udcff"], "is not UTF-8"),
        (["train", "--config", DIGITS, "stray"], "Unexpected argument 'stray'"),
        (["evaluate", "--workdir", "/nowhere"], "No run in /nowhere"),
        (["evaluate", "--config", DIGITS], "--weights"),
        (["predict", "--workdir", "/nowhere", "x.jpg"], "No run in /nowhere"),
        (["info", "modles"], "Did you mean 'models'"),
    ],
)
def test_bad_input_is_one_message(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as error:
        cli.run(arguments)
    assert message in str(error.value)


def test_errors_exit_with_2_without_a_stack_trace_unless_asked_for():
    done = command("train", "--config", "configs/nothing.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No config file")
    assert "Traceback" not in done.stderr
    done = command("train", "--config", "configs/nothing.py", "--traceback")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("place", "message"),
    [("file/run", "A file stands where a folder is needed"), ("x" * 300, "name is too long")],
)
def test_a_folder_that_cannot_be_made_is_one_message(tmp_path, capsys, monkeypatch, place, message):
    monkeypatch.setattr("os._exit", sys.exit)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "--config", DIGITS + ":smoke", "--workdir", str(tmp_path / place)])
    assert done.value.code == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for the full disk; the errors come the same way."""
    from jaxvision.data.sources import tfds_builder

    tfds_builder("digits")
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from jaxvision.cli import main;"
        f"main(['train', '--config', {DIGITS + ':smoke'!r}, '--workdir', {str(tmp_path / 'run')!r},"
        "'--config.data.cache=false'])"
    )
    # A cache of its own: the limit cuts its entries short too.
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr.rpartition("error:")[2]
    assert "too large" in done.stderr or "disk" in done.stderr


def test_help_teaches():
    done = command("--help")
    assert done.returncode == 0
    assert "jaxvision train --config configs/classification/digits.py" in done.stdout
    assert "--workdir" in command("train", "--help").stdout
