"""Reports of runs on the embedded digits: written by the loop, by the command, of several runs."""

import json
import logging
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvision import cli
from jaxvision.report import LIMIT
from jaxvision.runs import reporting
from jaxvision.tasks import configuration
from jaxvision.tasks.classification import report as of_classification
from jaxvision.train import reports, run
from jaxvision.train.reports import Latest

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")
SMALL = {
    "model.name": "mlp",
    "train.duration": "2 epochs",
    "train.log_every": 11,
    "eval.every": "1 epoch",
    "checkpoint.every": "1 epoch",
    "log.tensorboard": False,
    "log.report": True,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two evaluations, with what it had reported of them."""
    workdir = tmp_path_factory.mktemp("trained") / "digits"
    result = run(configuration.load(DIGITS, SMALL), workdir)
    return workdir, result


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory):
    """A run that differs, as far as files tell."""
    workdir = tmp_path_factory.mktemp("other") / "digits"
    shutil.copytree(trained[0], workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["optimizer"]["learning_rate"] = 0.5
    (workdir / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["accuracy"] = 0.125
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    assert left.value.code == 0


def headings(text):
    return re.findall(r'<h2 id="h\d+">(.*?)</h2>', text)


def charts(text):
    return [
        json.loads(spec)
        for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    ]


def test_the_loop_leaves_a_report_of_the_test(trained):
    workdir, result = trained
    text = (workdir / "report.html").read_text()
    assert len(text.encode()) < LIMIT
    assert headings(text) == [
        "Results", "Curves", "Classes", "Confidence", "Predictions", "Over the training", "Data",
        "Model", "Machine", "Configuration",
    ]  # fmt: skip
    assert f"<dt>test accuracy</dt><dd>{result['accuracy']:.4g}</dd>" in text
    assert "Evaluated on test at step 44 of 44." in text
    assert not list(workdir.glob("*.tmp"))


def test_curves_are_those_of_the_metrics(trained):
    workdir, _ = trained
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {spec["description"].split(" over")[0]: spec for spec in
             charts((workdir / "report.html").read_text())}  # fmt: skip
    assert {"loss", "accuracy", "learning rate", "images per second"} <= found.keys()
    points = found["accuracy"]["data"]["values"]
    for split in ("train", "validation"):
        expected = [(r["step"], r["accuracy"]) for r in records if r["split"] == split]
        shown = [(p["x"], p["y"]) for p in points if p["of"] == split]
        np.testing.assert_allclose(shown, expected, rtol=1e-4)
    best = max((r for r in records if r["split"] == "validation"), key=lambda r: r["accuracy"])
    assert found["accuracy"]["layer"][1]["data"]["values"][0]["x"] == best["step"]


def test_the_matrix_and_the_worst_mistakes_are_those_of_the_test(trained):
    workdir, result = trained
    text = (workdir / "report.html").read_text()
    (matrix,) = [c for c in charts(text) if c["description"].startswith("Confusion")]
    cells = matrix["data"]["values"]
    assert sum(cell["n"] for cell in cells) == 360
    right = sum(cell["n"] for cell in cells if cell["r"] == cell["c"])
    assert right / 360 == pytest.approx(result["accuracy"])
    captions = re.findall(r"mistake: </span>(.*?)</figcaption>", text)
    assert 0 < len(captions) <= 360 - right
    shares = [float(re.search(r"is \d \(([\d.]+)%", caption)[1]) for caption in captions]
    assert shares == sorted(shares)  # the least likely of the true class first


def test_the_configuration_begins_with_what_differs(trained):
    text = (trained[0] / "report.html").read_text()
    changed, rest = text.split("What differs from the default</caption>")[1].split("<details>")
    assert "optimizer.learning_rate" in changed
    assert "data.name" not in changed
    assert "optimizer.momentum" in rest


def test_the_network_and_the_data_are_described(trained):
    text = (trained[0] / "report.html").read_text()
    assert re.search(r"mlp: [\d,]+ parameters, [\d,]+ multiply-adds", text)
    data = text.split(">Records of each class</caption>")[1].split("</table>")[0]
    counts = re.findall(r'<td class="n" data-v="(\d+)">', data)
    assert sum(map(int, counts[::2])) == 1437
    assert sum(map(int, counts[1::2])) == 360
    augmented = text.split("as the network sees them, augmented</h3>")[1].split("</section>")[0]
    assert augmented.count('<img src="data:') == 16


def test_an_old_run_is_evaluated_anew(trained, tmp_path):
    workdir, _ = trained
    command("report", workdir, "--output", tmp_path / "new.html", "--split", "test[:100]")
    text = (tmp_path / "new.html").read_text()
    (matrix,) = [c for c in charts(text) if c["description"].startswith("Confusion")]
    assert sum(cell["n"] for cell in matrix["data"]["values"]) == 100
    assert "Evaluated on test[:100] at step 44." in text


def test_files_alone_are_enough(trained, tmp_path):
    command("report", trained[0], "--files-only", "--output", tmp_path / "files.html")
    text = (tmp_path / "files.html").read_text()
    assert headings(text) == ["Results", "Curves", "Over the training", "Data", "Configuration"]
    assert text.count('<img src="data:') == 2  # of either evaluation


def test_runs_are_compared(trained, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("report", trained[0], other)
    text = (tmp_path / "comparison.html").read_text()
    (accuracy,) = [c for c in charts(text) if c["description"].startswith("accuracy, validation")]
    curves = {}
    for point in accuracy["data"]["values"]:
        curves.setdefault(point["of"], []).append(point["y"])
    assert len(curves) == 2
    assert curves[str(other)] == [0.125, 0.125]
    differing = text.split("Keys that differ</caption>")[1].split("</table>")[0]
    assert re.findall(r'<th scope="row"[^>]*>(.*?)</th>', differing) == ["optimizer.learning_rate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{run}"], "named twice"),
        (["{run}", "{run}", "--files-only"], "Several runs are compared by their files"),
        (["{run}", "--output", "{run}"], "--output names a file"),
        (["{run}/checkpoints"], "No run in"),
        (["{run}-nowhere"], "No run in"),
    ],
)
def test_what_cannot_be_reported_is_said(trained, arguments, message, capsys, monkeypatch):
    class Left(Exception):
        pass

    def leave(code):
        raise Left(code)

    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left):
        cli.main(["report", *(one.format(run=trained[0]) for one in arguments)])
    assert message in capsys.readouterr().err


def test_hostile_classes_are_names(trained, tmp_path):
    workdir = tmp_path / "digits"
    shutil.copytree(trained[0], workdir)
    name = "</script><script>alert(1)</script>"
    facts = json.loads((workdir / "facts.json").read_text())
    facts["class_names"][3] = name
    (workdir / "facts.json").write_text(json.dumps(facts))
    reporting.write_files_only(workdir, tmp_path / "hostile.html")
    text = (tmp_path / "hostile.html").read_text()
    assert name not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text


def test_a_run_goes_on_where_its_report_cannot_be_written(trained, tmp_path, caplog, monkeypatch):
    def fails(task, found):
        raise ValueError("no such thing")

    monkeypatch.setattr(of_classification, "sections", fails)
    with caplog.at_level(logging.WARNING):
        result = run(configuration.load(DIGITS, SMALL), tmp_path / "run")
    assert result == trained[1]  # to the bit
    said = [r.getMessage() for r in caplog.records if "report" in r.getMessage()]
    assert said == ["The report was not written: ValueError: no such thing"]
    assert not (tmp_path / "run" / "report.html").exists()


SMOKES = (
    "captioning/shapes", "detection/shapes", "generation/digits_dcgan", "localization/shapes",
    "multilabel/shapes", "pose/shapes", "pretraining/digits_dino", "pretraining/dvae",
    "segmentation/shapes_unet", "segmentation/volumes_vnet",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKES)
def test_every_task_is_reported(name, tmp_path, caplog):
    spec = f"{ROOT / 'configs' / name}.py:smoke"
    with caplog.at_level(logging.WARNING):
        run(configuration.load(spec, {"log.report": True}), tmp_path / "run")
    assert not [r for r in caplog.records if "report" in r.getMessage()]
    found = headings((tmp_path / "run" / "report.html").read_text())
    assert {"Results", "Curves", "Over the training", "Model", "Configuration"} <= set(found)


def test_no_report_is_written_where_none_is_wanted(tmp_path):
    run(configuration.load(DIGITS, {**SMALL, "log.report": False}), tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    assert not [t for t in threading.enumerate() if "report" in t.name]


def test_the_newest_wins_and_there_are_never_two():
    done, running, most = [], [], []
    begun, may_end = threading.Event(), threading.Event()

    def job(number):
        def work():
            running.append(number)
            most.append(len(running))
            begun.set()
            may_end.wait(10)
            done.append(number)
            running.remove(number)

        return work

    latest = Latest("test", rest=1000)
    latest.give(job(0))
    assert begun.wait(10)
    for number in (1, 2, 3):
        latest.give(job(number))
    may_end.set()
    latest.close()  # does not wait for the thread to have rested
    assert done == [0, 3]
    assert max(most) == 1
    latest.give(job(4))
    latest.close(drop=True)
    assert done in ([0, 3], [0, 3, 4])  # it may have begun


def test_the_thread_rests(monkeypatch):
    monkeypatch.setattr(reports, "_LEAVING", 0.1)
    done = []
    latest = Latest("test", rest=1000)
    latest.give(lambda: (time.sleep(0.05), done.append(0)))
    deadline = time.monotonic() + 10
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    latest.give(lambda: done.append(1))
    time.sleep(0.2)
    assert done == [0]  # the second waits fifty seconds
    latest.close()
    assert done == [0, 1]
