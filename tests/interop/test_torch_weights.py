"""The naming rule both ways, what files may look like, and errors that name what does not fit."""

import contextlib
import json
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import weight_files
from jaxvision.interop.torch_weights import (
    from_torch_layout,
    load,
    read_state_dict,
    save,
    to_state_dict,
    to_torch_layout,
    to_variables,
    torch_name,
)


def like(name="resnet8_cifar", classes=10, **options):
    entry = models.variant(name)
    model = models.create(name, classes, **options)
    image = jnp.zeros((1, *entry.input_shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))


def filled(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("params/layer1_0/conv1/kernel", "layer1.0.conv1.weight"),
        ("params/bn1/scale", "bn1.weight"),
        ("params/bn1/bias", "bn1.bias"),
        ("batch_stats/layer1_0/bn1/mean", "layer1.0.bn1.running_mean"),
        ("batch_stats/bn1/var", "bn1.running_var"),
        ("params/0/kernel", "0.weight"),
        (
            "params/encoder/encoding_blocks_12/conv1/kernel",
            "encoder.encoding_blocks.12.conv1.weight",
        ),
        ("params/features_0_1/kernel", "features.0.1.weight"),
        ("params/patch_embed/proj/kernel", "patch_embed.proj.weight"),
        ("params/layer_norm1/scale", "layer_norm1.weight"),
        ("params/cls_token", "cls_token"),
        ("params/tokens/embedding", "tokens.weight"),
        ("params/ls1/gamma", "ls1.gamma"),
        ("params/var", "var"),
    ],
)
def test_names(ours, theirs):
    assert torch_name(ours) == theirs


@given(st.lists(st.integers(1, 4), min_size=0, max_size=5), st.sampled_from(["kernel", "bias"]))
def test_layouts_are_inverse(shape, leaf):
    value = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    path = f"params/x/{leaf}"
    for there, back in ((to_torch_layout, from_torch_layout), (from_torch_layout, to_torch_layout)):
        np.testing.assert_array_equal(back(path, there(path, value)), value, strict=True)


def test_layouts_are_those_of_pytorch():
    shape = lambda *s: to_torch_layout("params/x/kernel", np.zeros(s)).shape  # noqa: E731
    assert shape(7, 9) == (9, 7)
    assert shape(3, 5, 7, 9) == (9, 7, 3, 5)
    assert shape(2, 3, 5, 7, 9) == (9, 7, 2, 3, 5)


@pytest.mark.parametrize("name", ["resnet8_cifar", "vit_mnist", "lenet5", "mlp"])
def test_state_dict_and_back(name):
    variables = filled(like(name))
    state = to_state_dict(variables)
    again = to_variables(state, like(name))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), variables, again)
    norms = [n for n in state if n.endswith("running_mean")]
    assert len([n for n in state if n.endswith("num_batches_tracked")]) == len(norms)


def test_other_precisions_become_the_models():
    shapes = like("lenet5")
    state = to_state_dict(filled(shapes))
    for dtype in (np.float16, np.float64, jnp.bfloat16):
        variables = to_variables({n: v.astype(dtype) for n, v in state.items()}, shapes)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


# -- files ----------------------------------------------------------------------------------------


def test_safetensors_round_trip(tmp_path):
    variables, path = filled(like()), tmp_path / "weights.safetensors"
    save(path, variables)
    again = load(path, like())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), variables, again)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]
    assert load_file(path)["layer1.0.conv1.weight"].shape == (16, 16, 3, 3)


def test_unet_is_exported_with_its_aliases_and_read_without(tmp_path):
    entry, shapes = models.variant("unet"), like("unet", 3, width=4, depth=1)
    variables, path = filled(shapes), tmp_path / "unet.safetensors"
    save(path, variables, entry.export)
    state = load_file(path)
    alias, name = (f"bottom_block.conv2.{n}.running_var" for n in ("block.1", "norm_layer"))
    np.testing.assert_array_equal(state[alias], state[name])
    assert "bottom_block.conv2.block.1.num_batches_tracked" in state
    assert "encoder.encoding_blocks.0.conv1.block.0.bias" in state  # the one without a norm
    jax.tree.map(np.testing.assert_array_equal, load(path, shapes, entry.convert), variables)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "_orig_mod.module."])
def test_prefixes_of_all_names(tmp_path, prefix):
    path, state = tmp_path / "w.safetensors", to_state_dict(filled(like("mlp")))
    save_file({prefix + n: v for n, v in state.items()}, path)
    assert read_state_dict(path).keys() == state.keys()


def test_a_prefix_of_some_names_stays(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"module.a": np.zeros(1), "b": np.zeros(1)}, path)
    assert read_state_dict(path).keys() == {"module.a", "b"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}, "optimizer": {"lr": 0.1}},
        lambda s: {"epoch": 3, "net": s},
    ],
)
def test_wrappers(monkeypatch, tmp_path, wrap):
    state = {"a.weight": np.zeros(2), "a.bias": np.ones(1)}
    monkeypatch.setattr(weight_files, "read_torch_file", lambda _: wrap({**state, "step": 3}))
    (tmp_path / "w.pth").write_bytes(b"x")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


def test_torch_files_are_read():
    state = read_state_dict(Path(__file__).parent / "data" / "legacy.pt")
    assert "nested" not in state
    assert state["transposed"].shape == (6, 4)


def test_bfloat16_safetensors(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    values = np.array([1, -2.5], jnp.bfloat16).tobytes()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values)
    state = read_state_dict(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(state["w"].astype(np.float32), [1, -2.5])


@pytest.fixture(scope="module")
def safetensors(tmp_path_factory):
    path = tmp_path_factory.mktemp("safetensors") / "w.safetensors"
    save(path, filled(like("mlp", hidden=(2,))))
    return path, path.read_bytes()


@settings(max_examples=200, deadline=2000)
@given(data=st.data())
def test_corrupt_safetensors(safetensors, data):
    path, whole = safetensors
    content = bytearray(whole)
    where = data.draw(st.integers(0, min(400, len(content) - 1)))
    content[where] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(UserError):
        read_state_dict(path)


def test_files_without_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=r"No weights file .*w\.safetensors"):
        read_state_dict(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="Cannot read"):
        read_state_dict(path)
    save_file({}, path)
    with pytest.raises(UserError, match="no tensors"):
        read_state_dict(path)
    (tmp_path / "w.pth").write_text("hello")
    with pytest.raises(UserError, match=r"Cannot read .*w\.pth"):
        read_state_dict(tmp_path / "w.pth")


# -- what does not fit ----------------------------------------------------------------------------


def message(state, **options):
    with pytest.raises(UserError) as raised:
        to_variables(state, like(**options), "w.pth")
    return str(raised.value)


def test_missing_and_unexpected():
    state = to_state_dict(filled(like()))
    state["linear.wieght"] = state.pop("linear.weight")
    text = message(state)
    assert text.startswith("w.pth do not fit the model.")
    assert "Missing (1): linear.weight" in text
    assert "Unexpected (1): linear.wieght" in text
    assert "'linear.weight' may be 'linear.wieght' there" in text


def test_another_depth_names_some_and_counts_all():
    text = message(to_state_dict(filled(like("resnet14_cifar"))))
    assert "Unexpected (30): layer1.1" in text
    assert "(22 more)" in text
    assert "Missing" not in text


def test_another_number_of_classes():
    text = message(to_state_dict(filled(like())), classes=100)
    assert "Mis-shaped (2)" in text
    assert "linear.weight is [10, 64], the model's is [100, 64]" in text


def test_num_batches_tracked_may_be_there_or_not():
    state = to_state_dict(filled(like()))
    to_variables({n: v for n, v in state.items() if not n.endswith("tracked")}, like())


# -- writing --------------------------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path, variables = tmp_path / "w.safetensors", filled(like("lenet5"))
    save(path, variables)
    before = path.read_bytes()

    def full(_, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match=r"Cannot write .*No space left"):
        save(path, variables)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="Cannot write"):
        save(tmp_path / "missing" / "w.safetensors", filled(like("lenet5")))
    with pytest.raises(UserError, match=r"written as \.safetensors"):
        save(tmp_path / "w.pth", filled(like("lenet5")))
