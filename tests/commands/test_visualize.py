"""`jaxvision visualize` on a short run on the built-in digits, and on a small transformer."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import cli, models, runs
from jaxvision.commands import features
from jaxvision.commands.visualize import KINDS
from jaxvision.commands.visualize.splits import most_confident_mistakes
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.tasks import configuration
from jaxvision.train import run

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")
SHAPES = str(ROOT / "configs" / "segmentation" / "shapes_unet.py") + ":smoke"
DCGAN = str(ROOT / "configs" / "generation" / "digits_dcgan.py")
SHORT = {"train.duration": "2 epochs", "eval.every": "2 epochs", "data.augment": "[]"}
SHORT |= {"log.tensorboard": "False", "eval.pictures": "0"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visualize") / "run"
    run(features.configured(DIGITS, None, SHORT), folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    split = features.read_split(features.configured(DIGITS, None, {}), "test", 3)
    folder = tmp_path_factory.mktemp("images")
    for index, image in enumerate(split.images):
        Image.fromarray(image[..., 0]).save(folder / f"digit{index}.png")
    return folder


@pytest.fixture
def visualize(workdir, tmp_path, capsys):
    """Runs the command on the run; the picture, and what is printed."""

    def call(kind, *arguments):
        output = tmp_path / "pictures" / f"{kind}.png"
        given = ["visualize", kind, "--workdir", workdir, "--output", output, *arguments]
        cli.run([str(a) for a in given])
        return np.asarray(Image.open(output)), capsys.readouterr().out

    return call


def test_pictures_of_images(visualize, images):
    picture, printed = visualize("grad-cam", images)
    assert printed.startswith("grad-cam of 3 images. Wrote ")
    assert picture.shape[0] > 3 * 160
    picture, _ = visualize(
        "saliency", "--layer=layer2_0", "--channels=3,5", "--rule=guided", images / "digit0.png"
    )
    assert picture.shape[1] == 3 * (picture.shape[1] // 3)  # the image and two channels
    picture, printed = visualize("activations", images / "digit0.png")
    assert printed.startswith("activations of 1 image. ")
    assert picture.shape[1] > 8 * 160  # the image and 15 channels, in two lines


def test_pictures_of_the_split(visualize):
    picture, printed = visualize("filters")
    assert printed.startswith("16 filters of conv1.")
    assert picture.shape == (4 * 52 + 4, 4 * 52 + 4, 3)
    _, printed = visualize("patches", "--channels=0,7", "--layer=layer1_0/conv1")
    assert printed.startswith("Patches of 5x5 pixels for 2 channels of layer1_0/conv1.")
    _, printed = visualize("confusion", "--percent")
    correct = int(printed.split()[0])
    assert f"{correct} of 360 correct" in printed
    picture, printed = visualize("misclassified", "--count=3", "--split=test")
    assert printed.startswith(f"{360 - correct} of 360 images are misclassified.")
    assert picture.shape[1] == 3 * 168


def test_a_transformer_with_weights(tmp_path, images, capsys):
    small = {"depth": 1, "width": 16, "num_heads": 2, "patch_size": 2}
    model = models.create("vit_mnist", 10, **small)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    torch_weights.save(tmp_path / "w.safetensors", variables)
    options = [f"--config.model.options.{key}={value}" for key, value in small.items()]
    names = "--config.data.classes=" + str(list("0123456789")).replace(" ", "")
    for kind, tiles in (("attention", 3), ("rollout", 2)):
        output = tmp_path / f"{kind}.png"
        cli.run(
            [
                *("visualize", kind, "--config", DIGITS, "--weights", f"{tmp_path}/w.safetensors"),
                *("--config.model.name=vit_mnist", *options, names),
                *("--output", str(output), str(images / "digit0.png")),
            ]
        )
        assert np.asarray(Image.open(output)).shape[1] == tiles * 168
    assert "rollout of 1 image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["activations", "--layer=layer2_0/conv"], r"layer 'layer2_0/conv'.*'layer2_0/conv[12]'"),
        (["activations", "--channels=3,x"], "--channels is numbers like"),
        (["activations", "--channels=16"], "no channel 16; the layer has 0 to 15"),
        (["saliency", "--rule=guide"], "rule 'guide'. Did you mean 'guided'"),
        (["saliency", "--label=ten"], "class 'ten'"),
        (["saliency", "--label=1", "--layer=conv1"], "--label is of the logits"),
        (["attention"], "ResNetCifar has no attention"),
        (["grad-cam", "--output=x.jpg"], "must end in .png"),
        (["grad-cam", "--layers=x"], "option 'layers'. Did you mean 'layer'"),
    ],
)
def test_what_is_wrong_is_named(visualize, images, arguments, message):
    with pytest.raises(UserError, match=message):
        visualize(*arguments, images / "digit0.png")


def test_what_is_missing_is_named(visualize, tmp_path):
    with pytest.raises(UserError, match="Give one of --workdir"):
        cli.run(["visualize", "filters", "--model", "vgg11"])
    with pytest.raises(UserError, match="--count=0 must be at least 1"):
        visualize("misclassified", "--count=0")
    with pytest.raises(UserError, match="on 16 channels"):
        visualize("filters", "--layer=layer1_0/conv1")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png cannot be read"):
        visualize("grad-cam", tmp_path / "broken.png")


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """Options that name a small segmentation network with random weights."""
    config = configuration.load(SHAPES)
    model = models.create(
        config.model.name, len(config.data.classes), **config.model.options.to_dict()
    )
    size = config.data.options["size"]
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    file = tmp_path_factory.mktemp("unet") / "w.safetensors"
    torch_weights.save(file, variables)
    return ["--config", SHAPES, "--weights", str(file)]


def test_confusion_of_pixels_is_that_of_evaluation(unet, tmp_path, capsys):
    output = tmp_path / "c.png"
    cli.run(["visualize", "confusion", *unet, "--output", str(output)])
    printed = capsys.readouterr().out
    _, sums = runs.with_weights(configuration.load(SHAPES), unet[-1]).evaluate("test")
    counts = np.asarray(sums["confusion"].counts)
    assert printed.startswith(f"{np.trace(counts)} of {counts.sum()} correct")
    assert Image.open(output).mode == "RGB"


def test_what_a_task_cannot_do_is_named(unet, images):
    with pytest.raises(UserError, match="mistakes is not for segmentation; it is for classif"):
        cli.run(["visualize", "misclassified", *unet])
    with pytest.raises(UserError, match="Grad-CAM is of classifiers"):
        cli.run(["visualize", "grad-cam", *unet, str(images / "digit0.png")])
    generator = ["--config", DCGAN, "--weights", unet[-1], str(images / "digit0.png")]
    with pytest.raises(UserError, match="takes no image but a latent"):
        cli.run(["visualize", "saliency", *generator])


def test_the_parser_needs_no_jax():
    program = (
        "import sys; from jaxvision import cli; cli._parser()\n"
        "sys.exit(', '.join({'jax', 'flax', 'numpy', 'PIL'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_kind_explains_itself(capsys):
    for kind in KINDS:
        with pytest.raises(SystemExit):
            cli.run(["visualize", kind, "--help"])
        assert "--workdir" in capsys.readouterr().out


def test_the_most_confident_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    order = most_confident_mistakes(probabilities, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(order, [2, 1])
