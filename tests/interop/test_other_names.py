"""Other libraries' names, read and written, against golden files of tests/parity/exports.py."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.cases import GOLDEN
from parity.deterministic import image
from parity.exports import EXPORTS, FRACTION, TRANSFORMERS
from safetensors.numpy import load_file, save_file

from jaxvision import cli, models, pretrained
from jaxvision.commands.export_torch import describe, target
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.interop.constructors import constructor
from jaxvision.interop.published import published

GIVEN = np.load(GOLDEN.parent / "other_names.npz")


def shapes_of(key):
    return {n: tuple(shape) for n, shape in json.loads(GIVEN[key].tobytes()).items()}


# -- transformers ---------------------------------------------------------------------------------

_VIT = {"width": 8, "depth": 2, "num_heads": 2, "patch_size": 4}
OURS = {
    "ViTForImageClassification": ("vit_tiny_patch16_224", _VIT),
    "DeiTForImageClassificationWithTeacher": ("deit_tiny_distilled_patch16_224", _VIT),
    "BeitForImageClassification": ("beit_base_patch16_224", _VIT),
    "SwinForImageClassification": (
        "swin_tiny_patch4_window7_224",
        {"width": 4, "depths": (2, 1), "num_heads": (1, 2), "window": 2, "patch_size": 2},
    ),
}


def stored(kind, form):
    """The state_dict of a small network of transformers."""
    state, values = {}, GIVEN[f"{kind}/{form}/values"].astype(np.float32) / FRACTION
    for name, shape in shapes_of(f"{kind}/{form}/shapes").items():
        count = int(np.prod(shape))
        state[name], values = values[:count].reshape(shape), values[count:]
    return state


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers_networks_give_their_logits(kind):
    name, options = OURS[kind]
    entry, model = models.variant(name), models.create(name, 3, **options)
    side = TRANSFORMERS[kind][1]["image_size"]
    x = jnp.asarray(np.moveaxis(image((2, 3, side, side)), 1, -1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    variables = torch_weights.to_variables(entry.convert(stored(kind, "file")), like)
    again = torch_weights.to_variables(entry.convert(stored(kind, "module")), like)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    expected = GIVEN[f"{kind}/logits"]
    logits = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(logits, expected, 1e-4, 1e-4 * np.abs(expected).max())


def test_the_indices_and_poolers_of_older_files_are_left_out():
    state = stored("ViTForImageClassification", "file")
    pooler = {"vit.pooler.dense.weight": np.zeros((8, 8)), "vit.pooler.dense.bias": np.zeros(8)}
    convert = models.variant("vit_tiny_patch16_224").convert
    assert convert(state | pooler).keys() == convert(state).keys()
    state = stored("SwinForImageClassification", "file")
    index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
    convert = models.variant("swin_t").convert
    assert convert(state | {index: np.zeros((4, 4))}).keys() == convert(state).keys()


# -- what export-torch writes ---------------------------------------------------------------------


def exported(export):
    """(variant, shapes by the reference's names) of the network."""
    entry = models.variant(export.name)
    model = models.create(export.name, export.classes, **export.options)
    *size, channels = entry.input_shape
    size = [export.side or side for side in size]
    x = jnp.zeros((1, *size, export.channels or channels))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    return entry, torch_weights.torch_shapes(like)


@pytest.mark.parametrize(
    "export",
    [pytest.param(e, marks=pytest.mark.slow) if e.slow else e for e in EXPORTS],
    ids=lambda export: export.call,
)
def test_exports_fit_the_constructor_that_is_printed(export):
    entry, shapes = exported(export)
    reference, rename = target(export.name, entry, export.package)
    network, differing = describe(export.name, entry, shapes)
    assert constructor(reference, network) == export.call
    assert not differing
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    found = {name: value.shape for name, value in rename(state).items()}
    expected = shapes_of(f"names/{export.call}")
    tracked = {name for name in expected if name.endswith("num_batches_tracked")}
    assert found == {n: s for n, s in expected.items() if n not in tracked}


def test_layers_of_timms_mobilenet_are_in_torchvisions_order():
    # Both list layers in the order in which they run, so a swap of two alike would show.
    timm = shapes_of('names/timm.create_model("mobilenetv2_100", num_classes=1000)')
    torchvision = shapes_of("names/torchvision.models.mobilenet_v2(num_classes=1000)")
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in timm.items()}
    assert list(models.variant("mobilenet_v2").convert(state)) == list(torchvision)


def test_what_is_converted_is_exported_again():
    for name in ("vit_b_16", "swin_t", "mobilenetv2_100"):
        (form,) = models.variant(name).forms
        (call,) = (e.call for e in EXPORTS if e.name == name and not e.package)
        names = shapes_of(f"names/{call}")
        state = {n: np.broadcast_to(i, shape) for i, (n, shape) in enumerate(names.items())}
        state = {n: v for n, v in state.items() if not n.endswith("relative_position_index")}
        again = form.export(models.variant(name).convert(state))
        for key, value in state.items():
            assert (again[key].shape, again[key].flat[0]) == (value.shape, value.flat[0])


def test_swins_indices_are_torchvisions():
    # Of a window of two: from each of the four places to each, over three by three differences.
    table = {"layers.0.blocks.0.attn.relative_position_bias_table": np.zeros((9, 1))}
    (form,) = models.variant("swin_t").forms
    index = form.export(table)["features.1.0.attn.relative_position_index"]
    assert index.reshape(4, 4).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert index.dtype == np.int64


def test_networks_without_a_constructor_are_described():
    entry = models.variant("resnet18")
    _, shapes = exported(EXPORTS[2]._replace(name="resnet18", channels=1))
    network, differing = describe("resnet18", entry, shapes)
    assert (network.channels, differing) == (1, [])
    assert constructor(entry.reference, network) == ""  # torchvision has no such argument


@pytest.fixture
def opened(monkeypatch):
    """What `pretrained.create` gives, without a file: a small network's zeros."""
    model = models.create("preresnet20_cifar10", 4)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
    monkeypatch.setattr(pretrained, "create", lambda *_: (model, variables))


def test_the_command(opened, tmp_path, capsys):
    line = ["export-torch", f"{tmp_path}/out.safetensors", "--model", "preresnet20_cifar10"]
    cli.run(line)
    out = capsys.readouterr().out
    name = '"preresnet20_cifar10"'
    assert f"network = pytorchcv.model_provider.get_model({name}, num_classes=4)" in out
    assert f'safetensors.torch.load_file("{tmp_path}/out.safetensors"), strict=True)' in out
    assert "options" not in out
    assert "features.stage1.unit1.body.conv1.conv.weight" in load_file(tmp_path / "out.safetensors")
    with pytest.raises(UserError, match="library with a preresnet20_cifar10 'timm'"):
        cli.run([*line, "--for", "timm"])


def test_a_network_of_ones_own_has_no_constructor(opened, monkeypatch, tmp_path, capsys):
    own = models.variant("preresnet20_cifar10")
    own = dataclasses.replace(own, reference="", classifier=(), first="")
    monkeypatch.setattr(models, "variant", lambda _: own)
    cli.run(["export-torch", f"{tmp_path}/out.safetensors", "--model", "mine"])
    assert "network = ...  # with modules named as in ours\n" in capsys.readouterr().out


def test_options_that_no_constructor_has_are_told(opened, tmp_path, capsys):
    cli.run(["export-torch", f"{tmp_path}/out.safetensors", "--model", "preresnet56_cifar10"])
    out = capsys.readouterr().out
    assert "tensors are not as in the published preresnet56_cifar10, e.g." in out


def test_detectors_are_named_without_a_constructor(monkeypatch, tmp_path, capsys):
    name, rows = "ssdlite320_mobilenet_v3_large", [(3, 8, 16, False, "RE", 2)] * 4
    encoder = {"rows": [*rows, *[(3, 8, 16, False, "RE", 1)] * 2], "reduced_tail": False}
    model = models.create(name, 2, encoder_options=encoder, extras=(), ratios=((2,), (2,)))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
    monkeypatch.setattr(pretrained, "create", lambda *_: (model, variables))
    cli.run(["export-torch", f"{tmp_path}/out.safetensors", "--model", name])
    out = capsys.readouterr().out
    assert f"network = ...  # torchvision {name}\n" in out
    assert "options" not in out
    # torchvision's names: the last stage begins within the first part.
    assert "backbone.features.1.0.2.0.weight" in load_file(tmp_path / "out.safetensors")


# -- MoCo v3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "classifier", "heads"),
    [
        ("vit_tiny_patch16_224", _VIT, "head", ("head.0", "head.3", "head.6")),
        ("resnet50", {"depths": (1,)}, "fc", ("fc.0", "fc.3")),
    ],
)
def test_the_student_of_a_file_of_moco_v3_is_a_backbone(name, options, classifier, heads, tmp_path):
    model = models.create(name, 3, **options)
    x = jnp.zeros((1, 16, 16, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x))()
    state = torch_weights.to_state_dict(variables)
    tracked = (f"{classifier}.", "num_batches_tracked")
    own = {k: v for k, v in state.items() if not k.startswith(tracked) and not k.endswith(tracked)}
    file = {f"module.base_encoder.{key}": np.asarray(value + 1) for key, value in own.items()}
    file |= {f"module.momentum_encoder.{key}": np.asarray(value + 2) for key, value in own.items()}
    for layer in heads:
        file |= {f"module.base_encoder.{layer}.weight": np.ones((2, 2), np.float32)}
    file |= {"module.predictor.0.weight": np.ones((2, 2), np.float32)}
    save_file(file, tmp_path / "moco.safetensors")
    weights = pretrained.read(str(tmp_path / "moco.safetensors"), name)
    loaded = pretrained.load_into(name, model, weights, variables, fine_tune=True)
    found = torch_weights.to_state_dict(loaded)
    for key, value in own.items():
        np.testing.assert_array_equal(found[key], value + 1)
    np.testing.assert_array_equal(found[f"{classifier}.weight"], state[f"{classifier}.weight"])
    network, alone = pretrained.create(name, weights, 0, (16, 16), **options)
    assert network.apply(alone, x).ndim == 2


def test_published_files_of_self_supervised_learning_have_names():
    tags = {
        "vit_small_patch16_224": {"dino", "mocov3"},
        "vit_small_patch8_224": {"dino"},
        "vit_base_patch16_224": {"dino", "mae", "mocov3"},
        "vit_base_patch8_224": {"dino"},
        "vit_large_patch16_224": {"mae"},
        "vit_huge_patch14_224": {"mae"},
        "resnet50": {"dino", "mocov3"},
    }
    for name, wanted in tags.items():
        entries = published(name)
        assert wanted <= set(entries)
        assert all(entries[tag].classes == 0 for tag in wanted)
