"""Autoencoding: runs, their files, and published weights."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import weights
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import cli, models, pretrained, runs, tasks
from jaxvision.commands import features
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.interop import published as module
from jaxvision.interop import torch_weights
from jaxvision.interop.published import published
from jaxvision.interop.weight_files import file_in, read_state_dict
from jaxvision.tasks import base, configuration
from jaxvision.train import run
from jaxvision.train import weights as weights_of
from jaxvision.train.step import init_variables

RNG = np.random.default_rng(0)


# -- runs --------------------------------------------------------------------------------------

CONFIGS = Path(__file__).parents[2] / "configs" / "generation"


def begin(workdir, variant, **keys):
    config = configuration.load(f"{CONFIGS / 'fashion_mnist.py'}:{variant}")
    for key, value in {"log.tensorboard": False, "eval.pictures": 18, **keys}.items():
        configuration.set_key(config, key, value)
    return run(config, workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    begin(
        folder, "smoke", **{"autoencoding.likelihood": "gaussian", "autoencoding.learn_scale": True}
    )
    return folder


def test_pictures_have_images_reconstructions_and_samples(trained):
    picture = np.asarray(Image.open(trained / "reconstructions.png"))
    assert picture.shape == (6 * 50, 16 * 50, 3)  # eighteen images of 48 pixels and their frames
    assert (picture[150:, 100:] == 255).all()
    assert (picture[:150, :100] != 255).any()


def test_reconstructions_of_files(trained, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    output = tmp_path / "out"
    files = ["predict", "--workdir", str(trained), str(tmp_path), "--output", str(output)]
    cli.run(files)
    first, second = json.loads((output / "predictions.json").read_text())
    assert first.keys() == {"file", "reconstruction", "kl", "psnr", "picture"}
    assert first["kl"] != second["kl"]
    both = np.asarray(Image.open(output / "a.png"))
    assert both.shape == (162, 324, 3)
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(both[1:161:20, 1:161:20, 0], shown)
    found = runs.open(trained).predict([tmp_path / "a.png"])[0].outputs
    np.testing.assert_array_equal(both[1:161:20, 163:323:20, 0], found["image"][..., 0])


def test_what_comes_back_to_the_bit():
    """Its PSNR is no number of JSON."""
    outputs = {"reconstruction": np.float32(1.5), "psnr": np.float32(np.inf), "codes": np.eye(2)}
    found, report = SimpleNamespace(outputs=outputs), tasks.report("autoencoding")
    expected = {"reconstruction": 1.5, "psnr": None, "codes_used": 2}
    assert report.summary(None, found) == expected
    assert report.cell(None, found) == "PSNR inf dB, reconstruction 1.50 nats, 2 codes"


def test_samples_and_features_of_a_run(trained, tmp_path):
    output = tmp_path / "samples"
    cli.run(["sample", "--workdir", str(trained), "--count", "3", "--output", str(output)])
    assert len(list(output.glob("0*.png"))) == 3
    shown = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    vectors = features.deep(trained, shown)
    assert vectors.shape == (5, 4)
    opened = runs.open(trained)
    np.testing.assert_allclose(
        vectors, opened.task.features(opened.variables, jnp.asarray(shown)), 1e-4, 1e-5
    )


def test_a_run_goes_out_and_others_start_from_it(trained, tmp_path):
    """What is beside the network, a scale that is learnt, stays behind."""
    file = tmp_path / "vae.safetensors"
    cli.run(["export-torch", str(file), "--workdir", str(trained)])
    assert "log_scale" not in read_state_dict(file)
    config = runs.open(trained).config
    other = runs.with_weights(config, str(file))
    theirs = runs.open(trained).variables
    own = other.variables_for((8, 8, 1))
    jax.tree.map(
        np.testing.assert_array_equal, own["params"]["encoder"], theirs["params"]["encoder"]
    )
    assert float(own["params"]["log_scale"]) == pytest.approx(math.log(0.1))
    for start in (str(file), f"run:{trained}"):
        config.model.weights = start
        task = other.task
        fresh = init_variables(task, 0, base.image_spec((8, 8, 1)))
        loaded = task.load_weights(config, fresh, weights_of.read)
        jax.tree.map(
            np.testing.assert_array_equal, loaded["params"]["decoder"], theirs["params"]["decoder"]
        )
        assert loaded["params"]["log_scale"] is fresh["params"]["log_scale"]


# -- published weights ---------------------------------------------------------------------------


def test_a_kl_autoencoder_by_its_name(tmp_path, monkeypatch):
    """A file as diffusers wrote it once, used on photographs as they are."""
    options = {"widths": (4, 4, 4, 4), "depth": 1, "groups": 2}
    model = models.create("autoencoder_kl", **options)
    shapes = torch_weights.torch_shapes(
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    )
    state = {name.replace("to_q", "query"): weights(name, shape) for name, shape in shapes.items()}
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(state, file)
    about = published("autoencoder_kl")["sd_vae_ft_mse"]
    assert about.hub == "stabilityai/sd-vae-ft-mse"
    monkeypatch.setattr(module, "hub_file", lambda repository: {about.hub: file}[repository])
    opened = runs.published("autoencoder_kl", "default", {"model.options": options})
    assert opened.config.task == "autoencoding"
    assert opened.config.data.eval_transforms == ()
    photograph = RNG.integers(0, 256, (20, 33, 3)).astype(np.uint8)
    (one,) = opened.predict([photograph])
    assert one.outputs["image"].shape == (20, 33, 3)
    with pytest.raises(UserError, match=r"how images of vae_mlp are prepared; give --config"):
        pretrained.usual("vae_mlp", 0)
    assert file_in(tmp_path) == file


def test_the_published_vae(shared_data):
    """KL and cross-entropy of the 10,000 test images, as PyTorch computes them."""
    folder = shared_data / "weights" / "vae_mnist"
    config = configuration.load(
        str(CONFIGS / "mnist_vae.py"), {"data.dir": str(shared_data / "mnist_test")}
    )
    opened = runs.with_weights(config, str(folder / "vae_epoch_25.pth"))
    found, _ = opened.evaluate()
    assert found["kl"] == pytest.approx(25.75474, abs=1e-4)
    assert found["reconstruction"] == pytest.approx(69.16518, abs=1e-4)
    assert found["elbo"] == pytest.approx(-103.2, abs=0.1)
    reference = np.load(folder / "reference_first64.npz")
    stream = open_stream(config.data, "test", seed=0, train=False, annotations=())
    shown = jnp.stack([stream[i]["image"] for i in range(64)])
    own, normal = opened.variables, opened.task.inputs.evaluate(shown)
    posterior = opened.model.apply(own, normal, method="encode")
    np.testing.assert_allclose(posterior.mean, reference["mu"], 1e-3, 1e-4)
    np.testing.assert_allclose(posterior.log_variance, reference["logvar"], 1e-3, 1e-4)
    seen = jax.nn.sigmoid(opened.model.apply(own, normal))
    np.testing.assert_allclose(seen.reshape(64, -1), reference["recon"].reshape(64, -1), 0, 1e-4)
