"""Stages that are kept in a folder: what is made once, what is refused, what is damaged."""

import json

import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.runs.stages import Stages


def stages_in(folder, **config):
    return Stages(folder, {"data.name": "shapes", **config}, lambda stage: f"make {stage}")


@pytest.fixture
def stages(tmp_path):
    made = stages_in(tmp_path)
    made.write("first", {"x": np.arange(3)}, {"size": 8, "sides": (1, 2)}, (), {"seconds": 1.5})
    made.write("second", {"y": np.ones(2)}, {"c": 0.5}, ("first",), {})
    return made


def test_what_is_kept_is_read_again(stages):
    assert stages.require("second").settings == {"c": 0.5}
    assert stages.require("first").notes == {"seconds": 1.5}
    np.testing.assert_array_equal(stages.arrays("first")["x"], [0, 1, 2])
    assert stages.done("second", {"c": 0.5}, ("first",), again=False) is not None
    assert stages.done("second", {"c": 0.5}, ("first",), again=True) is None
    assert stages.done("third", {}, (), again=False) is None
    # Tuples are JSON's lists.
    assert stages.done("first", {"size": 8, "sides": (1, 2)}, (), again=False) is not None


def test_a_stage_that_is_missing_is_named(stages):
    with pytest.raises(UserError, match=r"has no third yet. First: `make third`"):
        stages.require("third")


def test_other_settings_are_refused(stages):
    with pytest.raises(
        UserError, match=r"made with c=0\.5, not 1: make them anew by `make second --again`"
    ):
        stages.done("second", {"c": 1}, ("first",), again=False)


def test_what_was_made_of_other_data_is_refused(stages, tmp_path):
    other = stages_in(tmp_path, **{"data.name": "bccd"})
    with pytest.raises(UserError, match=r"data.name was 'shapes' and is 'bccd'"):
        other.require("first")
    with pytest.raises(UserError, match=r"of other data"):
        other.done("first", {}, (), again=False)


def test_keys_of_other_versions_are_not_compared(stages, tmp_path):
    later = stages_in(tmp_path, **{"data.new": 3})
    assert later.require("second").fingerprint == stages.require("second").fingerprint


def test_what_was_made_of_an_earlier_first_stage_is_refused(stages):
    stages.write("first", {"x": np.arange(4)}, {"size": 16}, (), {})
    with pytest.raises(UserError, match=r"second .* were made of other first"):
        stages.require("second")
    with pytest.raises(UserError, match=r"second .* were made of other first"):
        stages.done("second", {"c": 0.5}, ("first",), again=False)
    # The same again is the same.
    stages.write("first", {"x": np.arange(3)}, {"size": 8, "sides": (1, 2)}, (), {"seconds": 9})
    stages.require("second")


def test_a_stage_may_do_without_an_input(stages):
    stages.write("third", {}, {}, ("left_out",), {})
    stages.require("third")
    stages.write("left_out", {}, {}, (), {})
    with pytest.raises(UserError, match=r"were made of other left_out"):
        stages.require("third")


def test_damaged_files_are_named(stages, tmp_path):
    (tmp_path / "first.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"first\.npz is damaged"):
        stages.arrays("first")
    (tmp_path / "second.npz").unlink()
    with pytest.raises(UserError, match=r"second\.npz is damaged"):
        stages.arrays("second")
    (tmp_path / "first.json").write_text("{")
    with pytest.raises(UserError, match=r"first\.json is damaged"):
        stages.require("first")
    (tmp_path / "first.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(UserError, match=r"first\.json is damaged"):
        stages.require("first")


def test_pickles_are_not_read(stages, tmp_path):
    np.savez(tmp_path / "first.npz", x=np.array([{}], object))
    with pytest.raises(UserError, match=r"first\.npz is damaged"):
        stages.arrays("first")["x"]


def test_a_stage_whose_writing_fails_is_the_old_one(stages, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space"):
        stages.write("first", {"x": np.arange(9)}, {}, (), {})
    assert stages.require("first").settings["size"] == 8
    np.testing.assert_array_equal(stages.arrays("first")["x"], [0, 1, 2])
    assert not list(tmp_path.glob("*.tmp"))
