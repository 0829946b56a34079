"""One device, eight, two processes: the same numbers."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.tasks import default_config
from jaxvision.train import distributed, mesh

ROOT = Path(__file__).parents[2]
CONFIG = "configs/classification/digits.py"
OPTIONS = (
    "--config.train.duration=8",
    "--config.train.log_every=1",
    "--config.train.batch_size=64",
    "--config.eval.every=4",
    "--config.eval.pictures=0",
    "--config.checkpoint.every=4",
    "--config.log.tensorboard=false",
    "--config.log.report=false",
    "--config.model.options.width=32",  # wide enough for kernels to be split by fsdp
)


# Several runs of one process: the imports are paid once, and so are the devices.
SEVERAL = """
import json, shutil, sys
from pathlib import Path
from jaxvision import cli
for run in json.loads(sys.argv[1]):
    print("run", run["name"], flush=True)
    for name in run["remove"]:
        shutil.rmtree(name)
    try:
        cli.main(["train", *run["arguments"]])
    except SystemExit as end:
        if end.code:
            raise
"""


def environment(devices):
    """As many devices, and otherwise the flags of the tests, by which programs compile soon."""
    flags = [os.environ["XLA_FLAGS"], f"--xla_force_host_platform_device_count={devices}"]
    return {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}


def spawn(command, devices):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def arguments_of(workdir, *more):
    return [f"--config={CONFIG}", f"--workdir={workdir}", *OPTIONS, *more]


def start(workdir, *arguments, devices=1):
    return spawn(["train.py", *arguments_of(workdir, *arguments)], devices)


def finish(*processes):
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    return outputs


def losses(workdir):
    """[(split, step, loss)] of a run."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["split"], r["step"], r["loss"]) for r in records]


def assert_same_curve(a, b):
    one, other = losses(a), losses(b)
    assert [r[:2] for r in one] == [r[:2] for r in other]
    assert len([r for r in one if r[0] == "train"]) == 8
    np.testing.assert_allclose([r[2] for r in one], [r[2] for r in other], rtol=2e-3)
    # The first steps have no rounding behind them yet.
    np.testing.assert_allclose(one[0][2], other[0][2], rtol=1e-5)


WATCHED = ("--config.train.stop_metric=loss", "--config.train.stop_patience=100")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The folder of a run on one device."""
    workdir = tmp_path_factory.mktemp("single")
    (output,) = finish(start(workdir, *WATCHED))
    assert "step 8/8" in output
    return workdir


def mesh_of(data, fsdp):
    return f"--config.mesh.data={data}", f"--config.mesh.fsdp={fsdp}"


@pytest.fixture(scope="module")
def eight(single, tmp_path_factory):
    """(folder, what was printed) by name: runs of one process that has eight devices.

    `resumed` goes on, on four of them a group, from the middle of the run on one device.
    """
    folder = tmp_path_factory.mktemp("eight")
    arguments = arguments_of(folder / "both", *WATCHED, *mesh_of(2, 4))
    runs = [{"name": "both", "remove": [], "arguments": arguments}]
    shutil.copytree(single, folder / "resumed")
    last = str(folder / "resumed" / "checkpoints" / "8")
    arguments = arguments_of(folder / "resumed", *WATCHED, "--config.mesh.fsdp=4")
    runs.append({"name": "resumed", "remove": [last], "arguments": arguments})
    (output,) = finish(spawn(["-c", SEVERAL, json.dumps(runs)], 8))
    parts = re.split(r"^run (\w+)\n", output, flags=re.MULTILINE)
    return {name: (folder / name, text) for name, text in zip(parts[1::2], parts[2::2])}


def test_eight_devices_follow_one(single, eight):
    workdir, output = eight["both"]
    assert "8 cpu devices: data 2 x fsdp 4" in output
    assert_same_curve(single, workdir)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (1, 8)])
def test_other_meshes_follow_one(single, tmp_path, data, fsdp):
    (output,) = finish(start(tmp_path / "run", *WATCHED, *mesh_of(data, fsdp), devices=8))
    assert f"8 cpu devices: data {data} x fsdp {fsdp}" in output
    assert_same_curve(single, tmp_path / "run")


def start_two(workdir, *arguments):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", "--num-processes=2", *arguments]
    return [start(workdir, *flags, f"--process-id={i}", devices=2) for i in range(2)]


def test_two_processes_follow_one(single, tmp_path):
    outputs = finish(*start_two(tmp_path / "run", *WATCHED))
    assert "4 cpu devices: data 4 x fsdp 1, 2 processes" in outputs[0]
    assert_same_curve(single, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        "generation/digits_dcgan.py:smoke",
        "generation/fashion_mnist.py:smoke",
        "generation/fashion_mnist.py:vqvae_smoke",
        "generation/fashion_mnist.py:ddpm_smoke",
        "pretraining/digits_dino.py:smoke",
        pytest.param(
            "pretraining/shapes.py:mae --config.data.options.train=64 "
            "--config.data.options.test=32 --config.model.options.depth=1",
            id="pretraining/shapes.py:mae",
        ),
        pytest.param(
            "pretraining/shapes.py:mocov3 --config.data.options.train=64 "
            "--config.data.options.test=32",
            id="pretraining/shapes.py:mocov3",
        ),
        "localization/shapes.py:smoke",
        "detection/shapes.py:smoke",
        "instances/shapes.py:smoke",
        "pose/shapes.py:smoke",
        "captioning/shapes.py:smoke",
    ],
)
def test_other_tasks_train_on_eight_devices_and_two_processes(config, tmp_path):
    """Metrics of rows too: what goes to the host is of all devices and processes."""
    more = ["--config.train.batch_size=32", "--config.train.duration=3", "--config.eval.every=3"]
    more += ["--config.train.log_every=1", "--config.eval.pictures=0", "--config.optimizer.ema=0"]
    more += ["--config.log.tensorboard=false", "--config.log.report=false"]
    more += ["--config.optimizer.learning_rate=1e-5"]
    path, *own = config.split()
    flags = [f"--config=configs/{path}", *more, *own]

    def begin(name, *given, devices=1):
        return spawn(["train.py", *flags, f"--workdir={tmp_path / name}", *given], devices)

    finish(begin("one"))
    finish(begin("eight", "--config.mesh.data=8", devices=8))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    several = [f"--coordinator=localhost:{port}", "--num-processes=2"]
    finish(*(begin("two", *several, f"--process-id={i}", devices=2) for i in range(2)))
    found = {}
    for name in ("one", "eight", "two"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        found[name] = [json.loads(line) for line in lines]
    for name in ("eight", "two"):
        assert len(found[name]) == len(found["one"]) == 5
        for ours, theirs in zip(found[name], found["one"]):
            for key in ours.keys() - {"images_per_second", "split"}:
                both = [math.nan if side[key] is None else side[key] for side in (ours, theirs)]
                assert both[0] == pytest.approx(both[1], rel=5e-3, abs=1e-4, nan_ok=True), key


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [(0,), (1,), (0, 1)])
def test_sigterm_to_any_process_ends_both_at_one_step(tmp_path, signalled):
    more = ["--config.train.duration=100000", "--config.checkpoint.every=never"]
    more += ["--config.model.name=mlp", "--config.model.options={}"]
    processes = start_two(tmp_path / "run", *more)
    for line in processes[0].stdout:
        if line.startswith("step "):
            break
    for index in signalled:
        processes[index].send_signal(signal.SIGTERM)
    output, _ = finish(*processes)
    step = int(re.search(r"Stopped by SIGTERM after step (\d+) of 100000; saved", output)[1])
    assert max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == step
    assert losses(tmp_path / "run")[-1][1] <= step


def test_a_run_resumes_on_another_number_of_devices(single, eight):
    workdir, output = eight["resumed"]
    assert "Resumed" in output
    assert "at step 4 of 8" in output
    assert_same_curve(single, workdir)


def test_shardings_split_parameters_and_moments_but_not_statistics():
    code = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from jaxvision.tasks import default_config
from jaxvision.train import mesh
from jaxvision.train.state import TrainState
config = default_config(); config.mesh.fsdp = 4
devices = mesh.make(config)
big = jax.ShapeDtypeStruct((3, 3, 64, 128), np.float32)
small = jax.ShapeDtypeStruct((128,), np.float32)
state = TrainState(small, {"kernel": big, "bias": small}, {"batch_stats": {"mean": small}},
                   ({"kernel": big},), None)
found = mesh.state_shardings(state, devices)
split, whole = P(None, None, None, "fsdp"), P()
assert found.params["kernel"].spec == split
assert found.opt_state[0]["kernel"].spec == split
assert found.params["bias"].spec == whole
assert found.model_state["batch_stats"]["mean"].spec == whole
print("as expected")
"""
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(8),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert output == "as expected\n"


def test_a_mesh_that_does_not_fit_is_refused():
    config = default_config()
    config.mesh.data = 3
    with pytest.raises(UserError, match=r"mesh.data=3 x mesh.fsdp=1 does not make 1 devices"):
        mesh.make(config)


def test_a_batch_that_devices_cannot_share_names_the_nearest():
    class Eight:
        size = 8

    with pytest.raises(UserError, match=r"batch_size=100 is not divisible by 8 devices.*96 or 104"):
        mesh.check_batch(100, Eight, "train.batch_size")
    with pytest.raises(UserError, match=r"8 devices x 2 micro-batches. Nearest: 16"):
        mesh.check_batch(8, Eight, "train.batch_size", accumulate=2)


def test_half_given_process_flags_are_refused():
    with pytest.raises(UserError, match="together"):
        distributed.initialize("localhost:1", None, 0)
    with pytest.raises(UserError, match=r"not within 0\.\.1"):
        distributed.initialize("localhost:1", 2, 2)
    distributed.initialize()  # nothing says that there are others
    assert jax.process_count() == 1
