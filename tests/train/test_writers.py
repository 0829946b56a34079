"""Records that survive kills, and files that are whole or untouched."""

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.tasks import default_config
from jaxvision.train.writers import Writers, read_metrics, write_atomically


def config(**log):
    made = default_config()
    made.log.tensorboard = False
    for key, value in log.items():
        made.log[key] = value
    return made


def steps(workdir):
    return [r["step"] for r in read_metrics(workdir / "metrics.jsonl")]


def test_records_after_the_step_resumed_from_are_dropped(tmp_path):
    writers = Writers(tmp_path, config(), 0)
    for step in (10, 20, 30):
        writers.scalars(step, "train", {"loss": 1.0 / step})
    writers.close()
    writers = Writers(tmp_path, config(), 20)
    assert steps(tmp_path) == [10, 20]
    writers.scalars(30, "train", {"loss": 0.5})
    assert steps(tmp_path) == [10, 20, 30]  # each record is on disk at once
    writers.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[-1] == {
        "step": 30, "split": "train", "loss": 0.5,
    }  # fmt: skip


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train", "loss": 2.0}\n{"step": 2, "spl')
    assert steps(tmp_path) == [1]
    Writers(tmp_path, config(), 5).close()
    assert path.read_text() == '{"step": 1, "split": "train", "loss": 2.0}\n'


def test_lines_that_are_no_records_are_left_out_with_a_warning(tmp_path, caplog):
    good = b'{"step": 1, "split": "train", "loss": 2.0}'
    lines = [b"[1]", b"3", b'{"step": "x", "split": "train"}', b"\xff\xfe", b'{"loss": 1}', good]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert steps(tmp_path) == [1]
    assert "line 1 is no record" in caplog.text


def test_undefined_numbers_are_null(tmp_path):
    writers = Writers(tmp_path, config(), 0)
    writers.scalars(1, "test", {"iou/car": float("nan"), "loss": float("inf"), "miou": 0.5})
    writers.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == {"step": 1, "split": "test", "iou/car": None, "loss": None, "miou": 0.5}


def test_other_processes_write_nothing(tmp_path):
    writers = Writers(tmp_path, config(tensorboard=True), 0, active=False)
    writers.scalars(1, "train", {"loss": 1.0})
    writers.picture(1, "test", "p", np.zeros((2, 2, 3), np.uint8))
    writers.close()
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.json"]
    monkeypatch.undo()
    write_atomically(path, "new")
    assert path.read_text() == "new"


def events(folder):
    """Events of TensorBoard's files, by the framing of TFRecord: length, crc, data, crc."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + length])
            yield event
            at += 12 + length + 4


def test_tensorboard_gets_scalars_and_pictures_and_is_purged_on_resuming(tmp_path):
    writers = Writers(tmp_path, config(tensorboard=True), 0)
    writers.scalars(7, "train", {"loss": 0.25, "nothing": float("nan")})
    writers.picture(7, "test", "predictions", np.zeros((4, 6, 3), np.uint8))
    writers.close()
    found = {v.tag: (e.step, v) for e in events(tmp_path / "tensorboard") for v in e.summary.value}
    assert set(found) == {"train/loss", "test/predictions"}
    assert found["train/loss"][0] == 7
    assert found["train/loss"][1].simple_value == 0.25
    image = found["test/predictions"][1].image
    assert (image.height, image.width) == (4, 6)
    assert not any(e.session_log.status for e in events(tmp_path / "tensorboard"))
    for step in (5, 0):  # resumed; begun anew, before the first checkpoint
        Writers(tmp_path, config(tensorboard=True), step).close()
        starts = [
            e.step for e in events(tmp_path / "tensorboard") if e.session_log.status == 1
        ]  # SessionLog.START: what comes after this step is forgotten
        assert step + 1 in starts


def test_weights_and_biases_that_are_not_installed_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'jaxvision\[wandb\]'"):
        Writers(tmp_path, config(wandb="project"), 0)
    assert not list(tmp_path.iterdir())


def test_weights_and_biases_resumes_a_run_by_its_folder(tmp_path, monkeypatch):
    calls, logged = [], []

    class Run:
        log = staticmethod(lambda values, step: logged.append((step, values)))
        finish = staticmethod(lambda: logged.append("finished"))

    class Wandb:
        init = staticmethod(lambda **options: calls.append(options) or Run)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    for name in ("a", "b", "a"):
        (tmp_path / name / "run").mkdir(parents=True, exist_ok=True)
        writers = Writers(tmp_path / name / "run", config(wandb="project"), 0)
        writers.scalars(3, "train", {"loss": 1.0})
        writers.close()
    first, other, again = (call["id"] for call in calls)
    assert first == again != other
    assert calls[0]["name"] == "run"
    assert logged[:2] == [(3, {"train/loss": 1.0}), "finished"]
