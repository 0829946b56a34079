"""Which state_dict of a file is meant, shards, folders, and what is asked for after a `#`."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvision.errors import UserError
from jaxvision.interop import weight_files
from jaxvision.interop.published import resolve
from jaxvision.interop.torch_pickle import Placeholder
from jaxvision.interop.weight_files import Choice, read_state_dict, split_choice

DATA = Path(__file__).parent / "data"
ONE, TWO = {"a.weight": np.zeros(2)}, {"a.weight": np.ones(2), "a.bias": np.ones(1)}


@pytest.fixture
def holding(monkeypatch, tmp_path):
    """A file of torch.save that holds what is given."""

    def file(content):
        monkeypatch.setattr(weight_files, "read_torch_file", lambda _: content)
        (tmp_path / "w.pth").write_bytes(b"x")
        return tmp_path / "w.pth"

    return file


@pytest.mark.parametrize(
    "key", ["state_dict_ema", "model_ema", "params", "params_ema", "ema", "module", "network"]
)
def test_what_scripts_call_a_network(holding, key):
    optimizer = {"state": {0: {"momentum": np.zeros(2)}}}
    content = {key: TWO, "optimizer": optimizer, "best": np.float32(1), "step": np.zeros(())}
    assert read_state_dict(holding(content)).keys() == TWO.keys()


def test_keys_of_ones_own(holding):
    assert read_state_dict(holding({"my_net": TWO, "optim": ONE})).keys() == TWO.keys()
    nested = {"state": {"best": {"mine": TWO}}, "scheduler": {"rates": np.zeros(1)}}
    assert read_state_dict(holding(nested)).keys() == TWO.keys()


def test_several_state_dicts_are_named(holding):
    path = holding({"state_dict": ONE, "state_dict_ema": TWO, "epoch": 3})
    named = r"#state_dict \(1 tensors\), #state_dict_ema \(2 tensors\)"
    with pytest.raises(UserError, match=named):
        read_state_dict(path)
    assert read_state_dict(path, "state_dict_ema").keys() == TWO.keys()
    with pytest.raises(UserError, match=r"'state_dict_emma'\. Did you mean 'state_dict_ema'"):
        read_state_dict(path, "state_dict_emma")


def test_one_state_dict_under_two_names_is_one(holding):
    assert read_state_dict(holding({"model": ONE, "state_dict": ONE})).keys() == ONE.keys()


def test_networks_within(holding):
    teacher = {f"module.backbone.{n}": v for n, v in TWO.items()} | {"module.head.w": np.ones(3)}
    content = {"teacher": {"net": teacher}, "student": ONE, "dino_loss": {"center": np.zeros(3)}}
    path = holding(content)
    with pytest.raises(UserError, match=r"#teacher/net \(3 tensors\), #student"):
        read_state_dict(path)
    assert read_state_dict(path, "teacher/net/module.backbone").keys() == TWO.keys()
    assert read_state_dict(path, "student").keys() == ONE.keys()
    path = holding({"state_dict": teacher, "epoch": 1})
    assert read_state_dict(path, "module.head").keys() == {"w"}
    with pytest.raises(UserError, match=r"'neck'\. Valid: module, state_dict"):
        read_state_dict(path, "neck")


def test_two_parts_of_a_part(holding):
    path = holding({"checkpoint": {"model": ONE, "ema": TWO}})
    with pytest.raises(UserError, match=r"#checkpoint/model .*, #checkpoint/ema"):
        read_state_dict(path, "checkpoint")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "backbone.", "model.module.", "_orig_mod.encoder."]
)
def test_prefixes_of_all_names(holding, prefix):
    path = holding({"state_dict": {prefix + name: value for name, value in TWO.items()}})
    assert read_state_dict(path).keys() == TWO.keys()


def test_tensors_of_kinds_that_are_not_read(holding):
    path = holding({**ONE, "q": Placeholder("torch._utils._rebuild_qtensor")})
    with pytest.raises(UserError, match=r"'q' in .* is not read: .*_rebuild_qtensor"):
        read_state_dict(path)
    path = holding({**ONE, "_extra_state": Placeholder("_io.BytesIO")})
    assert read_state_dict(path).keys() == ONE.keys()


def test_objects_alone_are_named(holding):
    with pytest.raises(UserError, match=r"no tensors\. Objects in it .*\(nets\.Net\).*save the"):
        read_state_dict(holding({"model": Placeholder("nets.Net"), "args": {"x": 1}}))


def test_shared_dicts_are_searched_once(holding):
    shared = dict(ONE)
    for _ in range(60):
        shared = {"x": shared, "y": shared}
    assert read_state_dict(holding(shared)).keys() == ONE.keys()


def test_float8_in_safetensors():
    state = read_state_dict(DATA / "new_kinds.safetensors")
    assert state.pop("uint16").tolist() == [1, 1, 20, 0]
    assert len(state) == 4
    for value in state.values():
        expected = np.array([1, 1.5, 20, 0.25], np.float32)
        np.testing.assert_array_equal(value, expected, strict=True)


def test_safetensors_under_another_name(tmp_path):
    save_file(TWO, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == TWO.keys()


# -- shards and folders ---------------------------------------------------------------------------


def sharded(folder, **changed):
    folder.mkdir(exist_ok=True)
    where = {"a.weight": "one.safetensors", "b.weight": "two.safetensors", **changed}
    save_file({"a.weight": np.arange(2.0)}, folder / "one.safetensors")
    save_file({"b.weight": np.arange(3.0)}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": where}))
    return index


def test_shards(tmp_path):
    index = sharded(tmp_path / "net")
    for path in (index, index.parent):
        state = read_state_dict(resolve(str(path))[0])
        assert {name: value.tolist() for name, value in state.items()} == {
            "a.weight": [0, 1],
            "b.weight": [0, 1, 2],
        }


@pytest.mark.parametrize(
    "file", ["../one.safetensors", "/etc/passwd", "..", "a\\b", "", "x.index.json"]
)
def test_shards_elsewhere_are_refused(tmp_path, file):
    with pytest.raises(UserError, match="which is no file beside it"):
        read_state_dict(sharded(tmp_path / "net", c=file))


def test_shards_that_lack_something(tmp_path):
    with pytest.raises(UserError, match=r"names three\.safetensors, which is not beside it"):
        read_state_dict(sharded(tmp_path, c="three.safetensors"))
    with pytest.raises(UserError, match=r"two\.safetensors has no 'c', which .* says is there"):
        read_state_dict(sharded(tmp_path, c="two.safetensors"))
    for text in ("[1]", "{}", "{", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": []}}'):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(UserError, match=r"index\.json"):
            read_state_dict(tmp_path / "model.safetensors.index.json")


def test_folders_of_the_hub(tmp_path):
    clone, cache = tmp_path / "clone", tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "c0ffee"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("c0ffee")
    for folder in (clone, snapshot, cache / "snapshots" / "other"):
        folder.mkdir(parents=True)
        save_file(ONE, folder / "model.safetensors")
    assert resolve(str(clone)) == (clone / "model.safetensors", None)
    assert resolve(str(cache)) == (snapshot / "model.safetensors", None)
    (cache / "refs" / "main").unlink()
    with pytest.raises(UserError, match="has 2 revisions"):
        resolve(str(cache))


def test_folders_without_weights(tmp_path):
    with pytest.raises(UserError, match=r"it has none of model\.safetensors, "):
        resolve(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"Another run's weights are run:{tmp_path}"):
        read_state_dict(tmp_path)


# -- what stands after a # ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "choice"),
    [
        ("w.pth", Choice("w.pth")),
        ("w.pth#ema", Choice("w.pth", "ema")),
        ("a/b#teacher/backbone,ignore=*.mask", Choice("a/b", "teacher/backbone", ("*.mask",))),
        ("w.pth#ignore=a,ignore=b", Choice("w.pth", "", ("a", "b"))),
        ("https://x.org/w.pth#sha256=00", Choice("https://x.org/w.pth#sha256=00")),
        ("https://x.org/w.pth#sha256=00,ema", Choice("https://x.org/w.pth#sha256=00", "ema")),
        ("w.pth#", Choice("w.pth")),
    ],
)
def test_choices(weights, choice):
    assert split_choice(weights) == choice


def test_choices_that_are_none(tmp_path):
    with pytest.raises(UserError, match="asks for 2 parts of a file: a, b"):
        split_choice("w.pth#a,b")
    path = tmp_path / "with#sign.pth"
    path.touch()
    assert split_choice(str(path)) == Choice(str(path))
    assert split_choice(f"{path}#ema") == Choice(str(path), "ema")
