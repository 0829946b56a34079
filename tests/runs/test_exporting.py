"""Exported programs, called where this package cannot be imported."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import linen as nn
from jax import export as jax_export
from parity.cases import CASES
from parity.cases import variant as variant_of
from programs import SMALL, photographs, trained
from safetensors.numpy import save_file

from jaxvision import cli, models, runs, tasks, train
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops import forms
from jaxvision.runs import exporting
from jaxvision.tasks import configuration
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.sampling import Sampling
from jaxvision.train.step import init_variables

# Calls every program on one and on three images, without this package.
CALLER = """
import sys
sys.modules["jaxvision"] = None
import jax.export, numpy as np
for program, images, found in zip(*[iter(sys.argv[1:])] * 3):
    with open(program, "rb") as file:
        call = jax.export.deserialize(bytearray(file.read())).call
    batches = np.load(images)
    outputs = {f"{name}-{n}": np.asarray(array) for n in batches.files
               for name, array in call(batches[n]).items()}
    np.savez(found, **outputs)
"""
PUBLISHED = {
    "resnet50": ((224, 224, 3), {}),
    "mobilenet_v2": ((224, 224, 3), {}),
    "shufflenet_v2_x0_5": ((224, 224, 3), {}),
    "vit_small_patch16_224": ((224, 224, 3), {}),
    "beit_base_patch16_224": ((224, 224, 3), {}),
    "swin_tiny_patch4_window7_224": ((224, 224, 3), {}),
    "unet": ((256, 256, 3), {}),
}


def call(programs, folder):
    """What `CALLER` finds, by name."""
    arguments = []
    for name, (program, images) in programs.items():
        batches = folder / f"{name}-images.npz"
        np.savez(batches, one=images[:1], three=images)
        arguments += [program, batches, folder / f"{name}-found.npz"]
    done = subprocess.run(
        [sys.executable, "-c", CALLER, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: np.load(folder / f"{name}-found.npz") for name in programs}


def check(found, predictions):
    """One program's outputs against what the run predicts of the three images."""
    for name in predictions[0].outputs:
        expected = np.stack([p.outputs[name] for p in predictions])
        np.testing.assert_allclose(found[f"{name}-three"], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[f"{name}-one"], expected[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("networks", [SMALL, pytest.param(PUBLISHED, marks=pytest.mark.slow)])
def test_programs_give_what_the_runs_predict(networks, tmp_path):
    programs, expected = {}, {}
    for name, (shape, options) in networks.items():
        run, images = trained(name, shape, options, tmp_path), photographs(shape)
        expected[name] = run.predict(list(images))  # first, so that nothing cached is exported
        path = tmp_path / f"{name}.jaxexport"
        size = exporting.write(exporting.export(run), path)
        assert size == path.stat().st_size
        programs[name] = path, images
    found = call(programs, tmp_path)
    for name in networks:
        check(found[name], expected[name])
        scores = next(found[name][f"{key}-three"] for key in ("probabilities", "probability")
                      if f"{key}-three" in found[name])  # fmt: skip
        assert np.ptp(scores, axis=0).max() > 1e-4  # else any image would do


def test_what_is_written_beside_says_how_to_use_it(tmp_path):
    run = trained("unet", *SMALL["unet"], tmp_path)
    run.config.data.eval_transforms = ({"name": "resize_shorter", "size": 32},)
    program = exporting.export(run, (32, 48), ("cpu",))
    exporting.write(program, tmp_path / "unet.jaxexport", "Apache-2.0")
    about = json.loads((tmp_path / "unet.json").read_text())
    assert about.pop("jax") == jax.__version__
    assert about == {
        "program": "unet.jaxexport",
        "licence": "Apache-2.0",
        "task": "segmentation",
        "network": "unet",
        "weights": run.weights,
        "input": {"dtype": "uint8", "shape": ["b", 32, 48, 3], "channels": "RGB"},
        "preparation": [{"name": "resize_shorter", "size": 32}],
        "preparation_gives_one_size": False,
        "normalisation": {"mean": [0.5], "std": [0.25], "inside": True},
        "outputs": {
            "segmentation": {"dtype": "int32", "shape": ["b", 32, 48]},
            "probability": {"dtype": "float32", "shape": ["b", 32, 48]},
        },
        "classes": ["cat", "dog", "owl"],
        "platforms": ["cpu"],
    }


def test_command_exports_a_run(tmp_path, capsys):
    config = configuration.load(
        "configs/classification/digits.py",
        {"model.name": "mlp", "data.augment": (), "train.duration": 2, "eval.pictures": 0,
         "log.tensorboard": False},
    )  # fmt: skip
    tested = train.run(config, tmp_path / "run")
    output = tmp_path / "new" / "digits.jaxexport"
    command = ["export", str(output), "--workdir", str(tmp_path / "run")]
    with pytest.raises(UserError, match="are of samples; give --samples"):
        cli.run([*command, "--steps", "5"])
    with pytest.raises(UserError, match="leave --size out"):
        cli.run([*command, "--samples", "--size", "16"])
    capsys.readouterr()
    cli.run(command)
    assert "uint8 [b, 8, 8, 1] to label, probabilities" in capsys.readouterr().out
    images = photographs((8, 8, 1))
    found = call({"digits": (output, images)}, tmp_path)["digits"]
    check(found, runs.open(tmp_path / "run").predict(list(images)))
    about = json.loads(output.with_suffix(".json").read_text())
    assert about["licence"] is None
    assert about["data"] == {"source": "tfds", "name": "digits", "records": {"train": 1437}}
    assert about["metrics"] == pytest.approx(tested)


def generator(folder):
    """StyleGAN2 with fresh weights in a file."""
    config = configuration.load("configs/generation/ffhq.py:smoke")
    task = tasks.create(config, Facts())
    variables = init_variables(task, 0, image_spec(task.made))
    state = torch_weights.to_state_dict(task.of_network(variables))
    file = folder / "generator.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, file)
    return runs.with_weights(config, str(file))


def smoke(name, folder):
    """A run of a few steps."""
    train.run(configuration.load(f"configs/{name}"), folder)
    return runs.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        "ffhq",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "generation/fashion_mnist.py:ddpm_smoke",
                "generation/fashion_mnist.py:dit_smoke",
                "generation/fashion_mnist.py:smoke",
                "generation/digits_dcgan.py:smoke",
            )
        ),
    ],
)
def test_programs_draw_what_sampling_draws(name, tmp_path):
    run = generator(tmp_path) if name == "ffhq" else smoke(name, tmp_path / "run")
    program = exporting.export_samples(run, platforms=("cpu",))
    exporting.write(program, tmp_path / "made.jaxexport")
    data = bytearray((tmp_path / "made.jaxexport").read_bytes())
    call = jax_export.deserialize(data).call
    labels = "label" in program.about["input"]
    assert labels == ("labels" in run.task.controls())
    number = np.arange(3, dtype=np.int32)
    more = [np.array([2, 0, 2], np.int32)] if labels else []
    found = np.asarray(call(np.uint32(7), number, *more)["image"], int)
    expected = run.sample(3, seed=7, **({"labels": (2, 0)} if labels else {}))
    np.testing.assert_allclose(found, expected, atol=1)
    assert np.ptp(expected, axis=0).max() > 0
    alone = call(np.uint32(7), number[1:2], *(one[1:2] for one in more))["image"]
    np.testing.assert_allclose(np.asarray(alone, int), expected[1:2], atol=1)
    if name == "ffhq":
        with pytest.raises(UserError, match="samples have no steps"):
            exporting.export_samples(run, Sampling(steps=5))


@pytest.mark.slow
def test_the_card_of_a_captioner_turns_tokens_into_words(tmp_path):
    run = smoke("captioning/shapes.py:smoke", tmp_path / "run")
    program = exporting.export(run, platforms=("cpu",))
    card = json.loads(json.dumps(program.about))
    shape = card["input"]["shape"][1:]
    images = photographs(shape)
    found = np.asarray(program.exported.call(images)["tokens"])
    np.testing.assert_array_equal(
        found, [one.outputs["tokens"] for one in run.predict(list(images))]
    )
    words = tokenizers.Tokenizer.from_str(json.dumps(card["tokenizer"]))
    said = [
        words.decode(row[: [*row, card["tokens"]["end"]].index(card["tokens"]["end"])])
        for row in found
    ]
    assert said == run.task.texts(found)
    assert all(said)


def test_mistakes_are_met_at_the_door(tmp_path):
    run = trained("vit_tiny_patch16_224", *SMALL["vit_tiny_patch16_224"], tmp_path)
    with pytest.raises(UserError, match=r"Images of 40x48 do not divide into patches of 16x16"):
        exporting.export(run, (40, 48))
    with pytest.raises(UserError, match=r"have 2 sides, not 8x32x32"):
        exporting.export(run, (8, 32, 32))
    with pytest.raises(UserError, match=r"Unknown platform 'cdua'. Did you mean 'cuda'"):
        exporting.export(run, (32, 48), ("cdua",))
    with pytest.raises(UserError, match=r"is written as .jaxexport or .onnx; .* ends in '.pb'"):
        cli.run("export x.pb --workdir nowhere")
    generator = tasks.default_config("generation")
    generator.model.name = "dcgan_generator"
    with pytest.raises(UserError, match=r"Export is not for generation; it is for classification"):
        exporting.export(runs.with_weights(generator, ""), (32, 32))


@pytest.mark.usefixtures("own_networks")
def test_a_network_that_counts_its_images_is_told_how(tmp_path):
    @models.register("counter", input_shape=(8, 8, 1), paper="none", first="Dense_0")
    class Counter(nn.Module):
        num_classes: int = 3

        @nn.compact
        def __call__(self, image, train=False):
            return nn.Dense(self.num_classes)(image.reshape(len(image), -1))

    with pytest.raises(UserError, match=r"counter cannot be traced .* from image.shape\[0\], not"):
        exporting.export(trained("counter", (8, 8, 1), {}, tmp_path))


def test_portable_forms_are_not_those_of_the_cache():
    """The same shapes, traced before and after."""

    def lowered():
        x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
        return jax.jit(lambda x: forms.computed_once(x)).lower(x).as_text()

    assert "LayoutConstraint" in lowered()
    with forms.portable():
        assert "LayoutConstraint" not in lowered()
    assert "LayoutConstraint" in lowered()


def traced(name, shape, **options):
    """Exports a network without weights, for any batch."""
    entry = models.variant(name)
    if "classes" in entry.ends:
        options["num_classes"] = options.get("num_classes", 5)
    model = models.create(name, **options)
    (batch,) = jax_export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    blank = jnp.zeros((1, *shape))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), blank, train=False))
    function = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    with forms.portable():
        exported = jax_export.export(function, platforms=exporting.PLATFORMS)(variables, image)
    assert str(exported.out_avals[0].shape[0]) == "b"


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_every_network_can_be_exported(name):
    if models.variant(name).inputs[0] == "image":
        traced(name, models.variant(name).input_shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_form_of_a_network_can_be_exported(name):
    case = CASES[name]
    channels, *size = case.image[1:]
    traced(variant_of(name), (*size, channels), **case.options)
