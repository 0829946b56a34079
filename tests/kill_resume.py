"""Kills one training again and again; its final weights must equal those of a run left alone.

    python tests/kill_resume.py --kills 20            # kill -9
    python tests/kill_resume.py --kills 20 --signal TERM
    python tests/kill_resume.py --kills 3 --signal KILL TERM KILL --steps 300   # in turn
    python tests/kill_resume.py --config configs/generation/digits_dcgan.py:smoke --steps 300

Kills come at random moments after the first step was compiled, and every third one as soon as a
checkpoint is being written. Evaluation takes about a third of the run's time, so kills land there
too; the script prints where each one did.
"""

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/classification/digits.py"
DROPOUT_AND_PLATEAU = (  # what the default is trained with
    "--config.model.name=mlp_256x2",
    "--config.model.options.dropout=0.1",
    "--config.schedule.name=plateau",
    "--config.schedule.patience=2",
)
OPTIONS = (
    "--config.optimizer.ema=0.9",
    "--config.train.log_every=5",
    "--config.eval.every=20",
    "--config.eval.pictures=0",
    "--config.checkpoint.every=15",
    "--config.log.tensorboard=false",
)


class Life:
    """One process of the training, and where it stands by what it prints."""

    def __init__(self, config: str, workdir: Path, steps: int):
        command = [sys.executable, "-u", str(ROOT / "train.py"), "--config", config]
        command += ["--workdir", str(workdir), f"--config.train.duration={steps}", *OPTIONS]
        command += DROPOUT_AND_PLATEAU if config == CONFIG else ()
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self.compiled = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("Compiled"):
                self.compiled.set()
        self.compiled.set()

    def wait(self) -> int:
        code = self.process.wait()
        self._reader.join()
        return code


def writing(workdir: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in p.name for p in folder.iterdir())


def kill_once(life: Life, workdir: Path, rng: random.Random, how: int, on_write: bool) -> str:
    """Kills a training that has started; returns where it died ("" if it finished)."""
    life.compiled.wait()
    moment = time.monotonic() + rng.uniform(0.0, 1.0)
    while life.process.poll() is None:
        if (on_write and writing(workdir)) or (not on_write and time.monotonic() > moment):
            break
        time.sleep(0.001)
    if life.process.poll() is not None:
        life.wait()
        if life.process.returncode:
            raise SystemExit("The training failed by itself:\n" + "\n".join(life.lines[-15:]))
        return ""
    life.process.send_signal(how)
    code = life.wait()
    expected = -how if how == signal.SIGKILL else 0
    if code != expected:
        raise SystemExit(f"Exit code {code}, not {expected}:\n" + "\n".join(life.lines[-15:]))
    last = next((m[1] for s in reversed(life.lines) if (m := re.match(r"step (\d+)", s))), "?")
    return f"after step {last}" + (", while writing a checkpoint" if writing(workdir) else "")


def final_state(workdir: Path, steps: int) -> dict:
    """Every array of the last checkpoint, by path."""
    import jax
    import orbax.checkpoint as ocp

    checkpointer = ocp.StandardCheckpointer()
    state = checkpointer.restore(workdir.absolute() / "checkpoints" / str(steps) / "state")
    checkpointer.close()
    return {
        jax.tree_util.keystr(path): jax.device_get(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def differing(a: dict, b: dict) -> list[str]:
    """Paths whose arrays are not equal bit for bit."""
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    return [path for path in a if a[path].tobytes() != b[path].tobytes()]


def main(config: str, kills: int, how: Sequence[int], steps: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    reference, tortured = folder / "reference", folder / "tortured"
    print(f"Reference run of {steps} steps", flush=True)
    life = Life(config, reference, steps)
    if life.wait():
        raise SystemExit("The reference run failed:\n" + "\n".join(life.lines[-15:]))
    done, in_write = 0, 0
    while done < kills:
        life = Life(config, tortured, steps)
        where = kill_once(life, tortured, rng, how[done % len(how)], on_write=done % 3 == 2)
        if not where:
            raise SystemExit(f"The training ended after {done} kills; raise --steps.")
        done += 1
        in_write += "checkpoint" in where
        print(f"kill {done}: {where}", flush=True)
    life = Life(config, tortured, steps)
    if life.wait():
        raise SystemExit("The last life failed:\n" + "\n".join(life.lines[-15:]))
    wrong = differing(final_state(reference, steps), final_state(tortured, steps))
    print(
        f"{done} kills, {in_write} while a checkpoint was being written; {len(wrong)} arrays differ"
    )
    for path in wrong[:10]:
        print(f"  {path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=CONFIG, help="another than the default")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default=["KILL"], nargs="+")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    try:
        numbers = [getattr(signal, f"SIG{name}") for name in arguments.signal]
        code = main(
            arguments.config, arguments.kills, numbers, arguments.steps, arguments.seed, scratch
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(code)
