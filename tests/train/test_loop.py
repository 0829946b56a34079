"""The loop end to end, on the embedded digits."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import cli, runs
from jaxvision.data.sources import open_split
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import evaluation, log, run, workdir
from jaxvision.train.checkpoint import Checkpoints, damaged
from jaxvision.train.writers import read_metrics

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")
SMALL = {
    "model.name": "mlp",
    "data.augment": (),
    "train.duration": "2 epochs",
    "train.log_every": 11,
    "eval.every": "1 epoch",
    "checkpoint.every": "1 epoch",
    "eval.pictures": 0,
    "log.tensorboard": False,
}


def small(**changes):
    """The digits with a perceptron for two epochs of 22 steps, changed as asked."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return configuration.load(DIGITS, {**SMALL, **changes})


def records(workdir, split):
    return [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == split]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir of a finished small run, with everything written."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = run(small(eval__pictures=6, log__tensorboard=True), workdir)
    return workdir, result


def test_a_run_writes_what_it_promises(trained):
    workdir, result = trained
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["model"]["name"] == "mlp"
    facts = json.loads((workdir / "facts.json").read_text())
    assert facts["class_names"] == list("0123456789")  # so that predicting needs no data
    assert facts["records"] == {"train": 1437}
    assert [r["step"] for r in records(workdir, "train")] == [11, 22, 33, 44]
    assert [r["step"] for r in records(workdir, "validation")] == [22, 44]
    (test,) = records(workdir, "test")
    assert test["accuracy"] == result["accuracy"]
    assert test["accuracy"] > 0.8
    first, *_, last = records(workdir, "train")
    assert last["loss"] < 0.5 * first["loss"]
    assert first["images_per_second"] > 0
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"22", "44"}
    assert {p.name for p in (workdir / "pictures").iterdir()} == {"0000022.png", "0000044.png"}
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    picture = np.asarray(Image.open(workdir / "predictions.png"))
    assert picture.ndim == 3
    assert picture.std() > 20


def test_running_again_changes_nothing(trained):
    workdir, result = trained
    before = (workdir / "metrics.jsonl").read_text()
    again = run(small(eval__pictures=6, log__tensorboard=True), workdir)
    assert again == result
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert lines[:-1] == before.splitlines()  # the test split was evaluated once more


def test_the_metrics_do_not_depend_on_how_batches_are_cut(tmp_path):
    results = [run(small(eval__batch_size=size), tmp_path / str(size)) for size in (7, 360, 1000)]
    for other in results[1:]:
        assert other["accuracy"] == results[0]["accuracy"]
        assert other["loss"] == pytest.approx(results[0]["loss"], rel=1e-5)


def test_a_changed_configuration_is_refused_and_named(trained):
    workdir, _ = trained
    with pytest.raises(UserError) as error:
        run(small(optimizer__learning_rate=0.5, train__log_every=3), workdir)
    assert "optimizer.learning_rate: 0.004 -> 0.5" in str(error.value)
    assert "log_every" not in str(error.value)


def test_another_model_in_the_same_workdir_names_paths_and_shapes(trained):
    workdir, _ = trained
    with pytest.raises(UserError, match=r"model.options: \{\} -> \{'hidden': \[7\]\}"):
        run(small(**{"model__options__hidden": (7,)}), workdir)
    forced = small(**{"model__options__hidden": (7,), "train__allow_changed_config": True})
    with pytest.raises(UserError, match=r"\['0'\]\['kernel'\]: \[64, 100\] .* \[64, 7\]"):
        run(forced, workdir)


def test_nan_stops_the_run_and_names_step_metric_and_checkpoint(tmp_path):
    config = small(
        optimizer__name="sgd", optimizer__learning_rate=1e30, schedule__name="step",
        schedule__milestones=(1,), schedule__factor=1e30,
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"(loss|gradient_norm) is (nan|inf) at step \d+\. Last good"
    ):
        run(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_a_run_that_failed_before_its_first_checkpoint_may_be_put_right(tmp_path):
    with pytest.raises(UserError, match="train"):
        run(small(data__train="trian"), tmp_path / "run")
    wild = small(optimizer__name="sgd", optimizer__learning_rate=1e38, schedule__name="constant")
    with pytest.raises(UserError, match="Last good checkpoint: none"):
        run(wild, tmp_path / "run")
    assert run(small(train__duration=3), tmp_path / "run")["loss"] > 0


def test_early_stopping_waits_for_its_patience(tmp_path):
    config = small(
        optimizer__learning_rate=0.0, optimizer__weight_decay=0.0, schedule__name="constant",
        train__duration="9 epochs", train__stop_metric="accuracy", train__stop_patience=2,
    )  # fmt: skip
    run(config, tmp_path / "run")
    assert [r["step"] for r in records(tmp_path / "run", "validation")] == [22, 44, 66]


def test_a_plateau_lowers_the_rate(tmp_path):
    changes = {
        "optimizer__learning_rate": 1e-9, "schedule__name": "plateau", "schedule__patience": 0,
        "schedule__factor": 0.5, "schedule__min_delta": 0.1, "train__log_every": 1,
    }  # fmt: skip
    run(small(train__duration="4 epochs", **changes), tmp_path / "whole")
    rates = {r["step"]: r["learning_rate"] for r in records(tmp_path / "whole", "train")}
    assert rates[20] == pytest.approx(1e-9)
    assert rates[30] == pytest.approx(1e-9)  # the first evaluation is the best so far
    assert rates[50] == pytest.approx(5e-10)
    assert rates[70] == pytest.approx(2.5e-10)


@pytest.mark.parametrize(("validation", "step"), [("train[80%:]", 17), ("", 51), ("test", 51)])
def test_one_checkpoint_is_tested_and_used(tmp_path, capsys, validation, step):
    """The best by validation, where that is another split than the test; else the last."""
    # A rate that explodes after the first epoch makes the first checkpoint the best.
    config = small(
        data__train="train[:80%]", data__validation=validation, train__duration="3 epochs",
        optimizer__name="sgd", optimizer__learning_rate=0.05, schedule__name="step",
        schedule__milestones=(18,), schedule__factor=400.0, checkpoint__keep=1,
    )  # fmt: skip
    result = run(config, tmp_path / "run")
    accuracies = [r["accuracy"] for r in records(tmp_path / "run", "validation")]
    assert accuracies[0] == max(accuracies) > accuracies[-1]
    shown = capsys.readouterr().out
    assert f"test, step {step}: " in shown
    assert ("Testing the best checkpoint, of step 17" in shown) == (step == 17)
    assert [r["step"] for r in records(tmp_path / "run", "test")] == [step]
    assert result["accuracy"] == pytest.approx(accuracies[0 if step == 17 else -1], abs=0.1)
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {"17", "51"}
    opened = runs.open(tmp_path / "run")
    assert opened.step == step
    assert opened.evaluate()[0]["accuracy"] == result["accuracy"]
    if validation == "":
        with pytest.raises(SystemExit) as done:
            cli.main(["evaluate", "--workdir", str(tmp_path / "run")])
        assert done.value.code == 0
        shown = capsys.readouterr()
        assert "checkpoint of step 51" in shown.err
        assert f"accuracy {result['accuracy']:.4g}" in shown.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "resnet8_cifr"}, "Unknown model 'resnet8_cifr'. Did you mean 'resnet8_"),
        ({"model__options__hiden": 3}, "Unknown option of model 'mlp' 'hiden'. Did you mean 'hidd"),
        ({"data__name": "digit"}, "Unknown data set 'digit'. Did you mean 'digits'"),
        ({"data__train": "trian"}, "Unknown split of digits 'trian'. Did you mean 'train'"),
        ({"data__train": "train[:0]"}, "selects no record"),
        ({"data__augment": ({"name": "flip_horizontl"},)}, "flip_horizontal"),
        ({"data__train_transforms": ({"name": "resise"},)}, "Did you mean 'resize'"),
        ({"checkpoint__best_metric": "acuracy"}, "'accuracy'"),
        ({"train__batch_size": 5000}, "larger than the 1437 records"),
        ({"classification__class_weights": (1.0, 2.0)}, "2 values for 10 classes"),
        ({"data__source": "idx", "data__dir": "/nowhere"}, "/nowhere"),
        ({"model__weights": "/nowhere.pth"}, "No weights file /nowhere.pth"),
        ({"schedule__name": "step"}, "schedule.milestones"),
        ({"optimizer__name": "sdg"}, "Unknown optimizer 'sdg'. Did you mean 'sgd'"),
        ({"schedule__name": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_bad_input_is_one_clear_message(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        run(small(**changes), tmp_path / "run")
    assert message in str(error.value)


def test_fine_tuning_starts_from_given_weights_and_freezes(tmp_path, trained):
    from jaxvision.interop import torch_weights

    workdir, _ = trained
    variables = runs.open(workdir).variables
    torch_weights.save(tmp_path / "mlp.safetensors", variables)
    config = small(
        model__weights=str(tmp_path / "mlp.safetensors"), optimizer__freeze=("^0/",),
        train__duration=5, optimizer__learning_rate=1e-5, schedule__name="constant",
    )  # fmt: skip
    result = run(config, tmp_path / "tuned")
    assert result["accuracy"] == pytest.approx(_["accuracy"], abs=0.02)
    tuned = runs.open(tmp_path / "tuned").variables
    old, new = variables["params"], tuned["params"]
    np.testing.assert_array_equal(old["0"]["kernel"], new["0"]["kernel"])
    assert not np.array_equal(old["3"]["kernel"], new["3"]["kernel"])


def test_sigterm_during_the_test_ends_the_run_as_during_training(tmp_path, monkeypatch, capsys):
    evaluate = evaluation.Evaluator.__call__

    def struck(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(evaluation.Evaluator, "__call__", struck)
    config = small(train__duration=4, train__log_every=2, eval__every="never")
    assert run(config, tmp_path / "run") == {}
    assert "Stopped by SIGTERM after step 4 of 4; saved" in capsys.readouterr().out
    monkeypatch.undo()
    assert run(config, tmp_path / "run")["accuracy"] > 0
    assert [r["step"] for r in records(tmp_path / "run", "train")] == [1, 2, 3, 4]


def interrupt_while_saving(monkeypatch, times):
    """Ctrl-C, so many times, while the first checkpoint is being written."""
    save, left = Checkpoints.save, [times]

    def saving(self, *args, **kwargs):
        save(self, *args, **kwargs)
        while left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Checkpoints, "save", saving)


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_finishes_the_checkpoint_and_then_leaves(tmp_path, monkeypatch, capsys, times):
    before = signal.getsignal(signal.SIGINT)  # in a shell's background it is not Python's own
    with monkeypatch.context() as patch:
        interrupt_while_saving(patch, times)
        with pytest.raises(KeyboardInterrupt):
            run(small(train__duration=30, checkpoint__every=3), tmp_path / "run")
    if times == 1:
        assert "Stopped by Ctrl-C after step 4 of 30; saved" in capsys.readouterr().out
    assert damaged(tmp_path / "run" / "checkpoints" / "3") == ""
    assert (tmp_path / "run" / "checkpoints" / "3" / "seal.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    run(small(train__duration=30, checkpoint__every=3), tmp_path / "run")
    assert records(tmp_path / "run", "test")


def test_two_trainings_do_not_share_a_workdir(tmp_path):
    with workdir.locked(tmp_path / "run"):
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .*--workdir"):
            run(small(train__duration=2), tmp_path / "run")
        assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]
    assert run(small(train__duration=2), tmp_path / "run")["loss"] > 0


def test_a_finished_run_may_be_given_more_steps(tmp_path, capsys):
    run(small(train__duration=10), tmp_path / "run")
    run(small(train__duration=20), tmp_path / "run")
    assert "train.duration 10 -> 20: the learning rate follows" in capsys.readouterr().out
    steps = [r["step"] for r in records(tmp_path / "run", "train")]
    assert (steps[:10], steps[-1]) == (list(range(1, 11)), 20)


def test_a_changed_configuration_is_refused_before_data_are_read(trained, monkeypatch):
    workdir, _ = trained
    monkeypatch.setattr("jaxvision.train.beginning.open_data", pytest.fail)
    with pytest.raises(UserError, match=r"optimizer.learning_rate: 0.004 -> 0.5"):
        run(small(optimizer__learning_rate=0.5), workdir)


def test_the_trace_covers_the_steps_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append(("start", step)))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append(("stop before", step)))
    for span, first, expected in [
        ((2, 3), 1, [("start", 2), ("stop before", 4)]),
        ((2, 3), 3, []),  # resumed in its midst
        ((5, 99), 1, [("start", 5), ("stop before", 6)]),  # the run ends first
        ((), 1, []),
    ]:
        trace = log.Trace(span, tmp_path)
        for step in range(first, 7):
            trace.before(step, None)
            if step == 6:
                trace.end(None)
        assert calls == expected, span
        calls.clear()


def test_objects_that_do_not_fit_are_counted_and_said(tmp_path, capsys):
    few = {"data.max_instances": 1, "train.duration": 2, "eval.every": 2, "eval.pictures": 0}
    config = configuration.load(str(ROOT / "configs/localization/shapes.py:smoke"), few)
    run(config, tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if "max_instances=1" in line]
    assert len(said) == 1
    counts = re.match(r"(\d+) images have more objects .* kept, (\d+) left out", said[0])
    images, objects = map(int, counts.groups())
    splits = [open_split(config.data, split) for split in ("train", "test")]
    drawn = [len(source[i]["boxes"]) for source in splits for i in range(len(source))]
    assert (images, objects) == (sum(n > 1 for n in drawn), sum(drawn) - len(drawn))
    stored = Checkpoints(tmp_path / "run" / "checkpoints").meta(2)["progress"]["left_out"]
    trained = [n - 1 for n in drawn[:64] if n > 1]
    assert (len(stored), sum(stored.values())) == (len(trained), sum(trained))


def test_corrupt_images_are_skipped_counted_and_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for name, level in (("dark", 40), ("light", 200)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    broken = tmp_path / "data" / "train" / "dark" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "data" / "test" / "light" / "4.png").write_bytes(b"")
    changes = {
        "data__source": "folder", "data__dir": str(tmp_path / "data"), "data__channels": 3,
        "data__mean": (0.5,), "data__std": (0.25,), "data__cache": False, "train__batch_size": 16,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"Cannot read image .*3\.png"):
        run(small(**changes), tmp_path / "strict")
    result = run(small(**changes, data__on_corrupt="skip"), tmp_path / "run")
    assert result["accuracy"] == 1.0
    output = capsys.readouterr().out
    assert "Skipped 2 unreadable images" in output
    assert str(broken) in output
