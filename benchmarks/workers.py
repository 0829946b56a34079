"""Two interpreters side by side: workers that are asked in turn, one round after another.

A worker is a process that reads one JSON message a line and answers each with one. So JAX and
PyTorch need not share an environment, each has its own memory to be measured, and rounds of both
are interleaved in one process tree.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Worker:
    """A process that serves."""

    def __init__(self, python: str, script: str, *arguments: str, **environment: str):
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def ask(self, **message: Any) -> Any:
        """The answer to a message.

        Raises:
          RuntimeError: what went wrong in the worker, in one line.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def serve(answer: Callable[..., Any]) -> None:
    """Answers each line of the input by `answer(**message)`; what it prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = {"value": answer(**json.loads(line))}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        out.write(json.dumps(reply) + "\n")
        out.flush()


def interleaved(runs: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, float]:
    """The median of what each run returns; one round runs each of them once."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            times[name].append(run())
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("This system does not say how much memory a process has used.")
