"""What docs/tutorial.md says is typed, in its order, in an empty folder; `-s` prints the times."""

import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import pytest

from jaxvision.data.builders.drawing import CLASSES, draw

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
# What is not typed again: a clone, a new environment, a file that is fetched.
ONCE = ("git clone", "python3 -m venv", "curl ")
PROGRAM = [sys.executable, "-m", "jaxvision"]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
(PYTHON,) = (block for language, block in BLOCKS if language == "python")


def write_photographs(folder):
    """Ten of each class of drawn shapes, and one more."""
    counts = dict.fromkeys(range(len(CLASSES)), 0)
    index = 0
    while min(counts.values()) < 10:
        scene = draw(seed=0, index=index, size=64)
        index += 1
        counts[scene["label"]] += 1
        if counts[scene["label"]] <= 10:
            to = folder / "photos" / CLASSES[scene["label"]]
            to.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(to / f"{index:03}.jpg"), scene["image"][..., ::-1])
    cv2.imwrite(str(folder / "photo.jpg"), draw(seed=1, index=0, size=64)["image"][..., ::-1])


def test_nothing_but_what_is_run_is_typed():
    assert len(LINES) > 12
    for line in LINES:
        assert line.startswith(("jaxvision ", *ONCE)), line


@pytest.mark.slow
def test_the_tutorial_leads_to_a_served_model(tmp_path, shared_data):
    weights = shared_data / "weights" / "squeezenet_imagenet" / "compressed_SqueezeNet.net"
    shutil.copy(weights, tmp_path)
    write_photographs(tmp_path)
    for line in LINES:
        if line.startswith(ONCE):
            continue
        arguments = shlex.split(line)[1:]
        if arguments[0] == "serve":
            assert "photo" in served(arguments, tmp_path)
            continue
        began = time.perf_counter()
        done = subprocess.run([*PROGRAM, *arguments], cwd=tmp_path, capture_output=True, text=True)
        print(f"{time.perf_counter() - began:6.1f} s  {line}")
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    name, probability = done.stdout.split()
    assert name in CLASSES
    assert 0.1 <= float(probability) <= 1


def served(arguments, folder):
    """The page that the command serves."""
    command = [*PROGRAM, *arguments, "--port", "0", "--no-open"]
    server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "http://" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        with urllib.request.urlopen(re.search(r"http://\S+", said)[0], timeout=60) as page:
            return page.read().decode()
    finally:
        server.terminate()
        server.wait()
