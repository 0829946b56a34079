"""What a run prints."""

import io
import re

import pytest
from rich.console import Console

from jaxvision import progress
from jaxvision.train.console import RunConsole, format_metrics

FIRST = ("loss", "accuracy")


def test_the_important_metrics_come_first_and_classes_on_request():
    metrics = {"iou/car": 0.51234567, "speed": 12345.6, "accuracy": 0.98765, "loss": 0.1}
    assert format_metrics(metrics, FIRST) == "loss 0.1  accuracy 0.9877  speed 12346"
    assert format_metrics(metrics, FIRST, everything=True).endswith("iou/car 0.5123  speed 12346")
    assert format_metrics({"loss": float("nan"), "rate": 1e-9}) == "loss nan  rate 1e-09"
    assert format_metrics({}) == ""


def test_without_a_terminal_progress_is_lines_with_the_time_left(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("jaxvision.train.console.time.monotonic", lambda: now[0])
    with RunConsole(total=100, start=20) as console:
        now[0] += 30.0
        console.progress(40, {"loss": 0.5, "gradient_norm": 3.0, "images_per_second": 7.0})
        console.say("markup [bold]stays[/bold]")
    first, second = capsys.readouterr().out.splitlines()
    # 20 steps took 30 s, so that the 60 left take 90 s.
    assert first == "step 40/100  loss 0.5  images_per_second 7  ETA 1:30"
    assert second == "markup [bold]stays[/bold]"


@pytest.mark.parametrize("active", [True, False])
def test_other_processes_are_silent(active, capsys):
    with RunConsole(10, 0, active=active) as console:
        console.say("hello")
        console.progress(5, {"loss": 1.0})
    assert bool(re.search("hello", capsys.readouterr().out)) == active


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_waiting_shows_what_and_for_how_long():
    console = terminal()
    with progress.waiting("Compiling the training step", console):
        pass
    shown = console.file.getvalue()
    assert "Compiling the training step" in shown
    assert "0:00:0" in shown


def test_items_are_tracked_on_terminals_alone(monkeypatch):
    console = terminal()
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    assert list(progress.tracked(iter("abc"), "Reading", 3)) == ["a", "b", "c"]
    assert "Reading" in console.file.getvalue()
    console = Console(file=io.StringIO())
    assert list(progress.tracked(iter("abc"), "Reading", 3)) == ["a", "b", "c"]
    assert console.file.getvalue() == ""


def test_the_bar_moves_with_the_steps_between_records(monkeypatch):
    console = terminal()
    monkeypatch.setattr("jaxvision.train.console.Console", lambda **_: console)
    with RunConsole(total=100, start=0, first=FIRST) as shown:
        shown.progress(10, {"loss": 0.5, "images_per_second": 7.0})
        shown.step(37)
    assert "37/100" in console.file.getvalue()
    assert "loss 0.5" in console.file.getvalue()


def test_a_counter_says_what_is_done_and_what_else_takes_time():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    with progress.Counter("Predicting", 3, console) as counter:
        counter.advance()
        with counter.waiting("Compiling for images of 64x128"):
            counter._bar.refresh()
        counter.advance()
        counter._bar.refresh()
    text = file.getvalue()
    assert re.search(r"1/3 \S+ Compiling for images of 64x128", text)
    assert re.search(r"2/3 \S+ Predicting", text)


def test_without_a_screen_a_counter_says_only_what_takes_time():
    file = io.StringIO()
    with progress.Counter("Predicting", 3, Console(file=file)) as counter:
        counter.advance()
        with counter.waiting("Compiling for images of 64x128"):
            pass
    assert file.getvalue() == "Compiling for images of 64x128 ...\n"
