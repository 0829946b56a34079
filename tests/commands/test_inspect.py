"""`jaxvision inspect`: the table on the screen, as CSV and as a page."""

import csv

import pytest

from jaxvision import cli
from jaxvision.errors import UserError


def test_table_csv_and_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    files = [f"--csv={tmp_path / 't.csv'}", f"--html={tmp_path / 't.html'}"]
    cli.run(["inspect", "lenet5", "--classes", "10", *files])
    printed = capsys.readouterr().out
    assert "61,706" in printed
    assert "240,000" in printed  # 16 x 10 x 10 x 6 x 5 x 5
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["parameters"] for row in rows if row["parameters"] != "0"] == [
        *("156", "2416", "48120", "10164", "850"),
        "61706",
    ]
    assert rows[0]["output"] == "28x28x6"
    assert rows[0]["receptive field"] == "5"
    assert "<td>features_0</td>" in (tmp_path / "t.html").read_text()


def test_sizes_and_channels(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    cli.run(["inspect", "resnet8_cifar", "--size", "16x24", "--channels", "1", "--features"])
    printed = capsys.readouterr().out
    assert "16x24x16" in printed
    assert "linear" not in printed
    with pytest.raises(UserError, match="--size is HEIGHTxWIDTH"):
        cli.run(["inspect", "lenet5", "--size", "16by24"])
    cli.run(["inspect", "vnet", "--size", "16x16x32", "--classes", "2"])
    shown = capsys.readouterr().out
    assert "one image of 16x16x32x1" in shown
    assert "45,597,898" in shown
    with pytest.raises(UserError, match="--size is DEPTHxHEIGHTxWIDTH"):
        cli.run(["inspect", "vnet", "--size", "16x24"])
    with pytest.raises(UserError, match=r"'lenet6'.*'lenet5'"):
        cli.run(["inspect", "lenet6"])


def test_a_network_without_classes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    cli.run(["inspect", "vae_mlp"])
    shown = capsys.readouterr().out
    assert "fc21" in shown
    assert "652,824" in shown
