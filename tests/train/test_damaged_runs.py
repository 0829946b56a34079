"""Damaged runs: what is resumed ends with the bits of an undamaged run, or it is refused."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxvision import tasks
from jaxvision.errors import UserError
from jaxvision.train import run

FEW, MANY = 8, 120
STEPS = 4


def configured():
    config = tasks.default_config("classification")
    config.data.train, config.data.test = "train[:64]", "test[:32]"
    config.data.channels, config.data.cache = 1, True
    config.model.name, config.model.options = "mlp", {"hidden": (8,)}
    config.optimizer.ema = 0.5
    config.train.batch_size, config.train.duration = 32, STEPS
    config.checkpoint.every, config.checkpoint.keep = 1, STEPS
    config.eval.every, config.eval.pictures, config.log.tensorboard = "never", 0, False
    return config


def state_of(workdir):
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(workdir / "checkpoints" / str(STEPS) / "state")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and its last state."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(configured(), workdir)
    return workdir, state_of(workdir)


def damage(workdir, rng):
    """Does one thing to the run's folder, and says what."""
    files = sorted(p for p in workdir.rglob("*") if p.is_file() and p.name != ".lock")
    path = files[int(rng.integers(len(files)))]
    data = path.read_bytes()
    kind = rng.choice(["flip", "cut", "empty", "delete", "swap", "type", "rename", "exchange"])
    if kind == "flip" and data:
        place = int(rng.integers(len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    elif kind == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "swap":
        path.write_bytes(files[int(rng.integers(len(files)))].read_bytes())
    elif kind == "type":
        tables = sorted(workdir.rglob("*.json"))
        path = tables[int(rng.integers(len(tables)))]
        path.write_text(json.dumps([[], None, 3, {"a": []}, "text"][int(rng.integers(5))]))
    elif kind in ("rename", "exchange"):
        steps = sorted((workdir / "checkpoints").glob("[0-9]"))
        one, other = (steps[i] for i in rng.choice(len(steps), 2, replace=False))
        one.rename(workdir / "checkpoints" / "aside")
        if kind == "exchange":
            other.rename(one)
            (workdir / "checkpoints" / "aside").rename(other)
    else:
        path.unlink()
    return f"{kind} {path.relative_to(workdir)}"


def outcome(whole, workdir, seed):
    """What was damaged, and whether the run was resumed (to the same end) or refused."""
    finished, expected = whole
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))  # cut off before its end
    done = damage(workdir, np.random.default_rng(seed))
    try:
        run(configured(), workdir)
    except UserError:
        return done, "refused"
    jax.tree.map(np.testing.assert_array_equal, state_of(workdir), expected)
    return done, "resumed"


def check(whole, folder, seeds):
    found = [outcome(whole, folder / str(seed), seed) for seed in seeds]
    resumed = [done for done, end in found if end == "resumed"]
    assert len(resumed) > len(found) / 2, found  # most damage costs a step or two, not the run
    print(f"{len(found)} damaged runs: {len(resumed)} resumed to the same bits, the rest refused")


def test_damaged_runs_end_alike_or_are_refused(whole, tmp_path):
    check(whole, tmp_path, range(FEW))


@pytest.mark.slow
def test_many_damaged_runs_end_alike_or_are_refused(whole, tmp_path):
    check(whole, tmp_path, range(FEW, MANY))
