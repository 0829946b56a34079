"""Where the queries of detectors look, by place, and the picture of it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import cli, models, runs
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.layers.positions import sine_positions
from jaxvision.models.detection.detr import of_best_objects
from jaxvision.tasks import configuration

SHAPES = str(Path(__file__).parents[2] / "configs" / "detection" / "shapes.py")
SMALL = {
    "detr": {
        **{"encoder": "resnet18", "encoder_options": {"depths": (1, 1, 1)}, "queries": 5},
        **{"width": 16, "num_heads": 2, "hidden": 8, "encoder_layers": 1, "decoder_layers": 1},
    },
    "yolos": {"width": 16, "depth": 2, "num_heads": 2, "queries": 5, "patch_size": 16},
}


@pytest.fixture(scope="module", params=list(SMALL))
def opened(request, tmp_path_factory):
    """(kind, a run of a small network with drawn weights, its options on the command line)."""
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    overrides = {"data.classes": ("a", "b", "c"), "model.options": SMALL[kind]}
    config = configuration.load(f"{SHAPES}:{kind}", overrides)
    network = models.create(config.model.name, 3, **config.model.options.to_dict())
    image = jnp.zeros((1, 64, 96, 3))
    variables = jax.jit(network.init)(jax.random.key(0), image)
    torch_weights.save(
        folder / "w.safetensors", variables, models.variant(config.model.name).export
    )
    return kind, runs.with_weights(config, str(folder / "w.safetensors")), folder


def of(opened, image):
    _, run, _ = opened
    variables = run.variables_for(image.shape[1:])
    network, count = run.model, 3

    @jax.jit
    def both(v, x):
        return (
            network.query_attention(v, x),
            network.place_attention(v, x),
            of_best_objects(network, v, x, count),
            network.apply(v, x),
        )

    return jax.tree.map(np.asarray, both(variables, image))


def test_attention_is_laid_out_over_the_image(opened):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 96, 3)), jnp.float32)
    queries, places, found, every = of(opened, image)
    assert queries.shape == (2, 5, 4, 6)
    assert places.shape == (2, 4, 6, 4, 6)
    if opened[0] == "detr":
        np.testing.assert_allclose(queries.sum((2, 3)), 1, rtol=1e-5)
        np.testing.assert_allclose(places.sum((3, 4)), 1, rtol=1e-5)
    else:  # tokens that are no patches are attended to as well
        assert (queries.sum((2, 3)) < 1).all()
        assert (queries.sum((2, 3)) > 0.5).all()
    for key in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(found[key], every[key][:, :3], rtol=1e-5, atol=1e-5)
    for row in range(2):
        for weights in found["attention"][row]:
            assert min(np.abs(weights - one).max() for one in queries[row]) < 1e-6


def test_a_query_made_for_a_place_looks_there():
    """Its vector is that of the place's position, and nothing else tells places apart."""
    network = models.create("detr_resnet50", 2, **SMALL["detr"])
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 96, 3)), jnp.float32)
    variables = jax.device_get(jax.jit(network.init)(jax.random.key(0), image))
    model = variables["params"]["model"]
    norm = model["encoder.layers_0"]["final_layer_norm"]
    norm["scale"], norm["bias"] = norm["scale"] * 0, norm["bias"] * 0
    attention = model["decoder.layers_0"]["encoder_attn"]
    attention["k_proj"] = {"kernel": np.eye(16, dtype=np.float32), "bias": np.zeros(16)}
    attention["q_proj"]["kernel"] = np.zeros((16, 16))
    place = sine_positions((4, 6), 16)[3 * 6 + 1]
    attention["q_proj"]["bias"] = np.asarray(20 * place)
    (found,) = jax.jit(network.query_attention)(variables, image)
    for weights in np.asarray(found):
        assert np.unravel_index(weights.argmax(), weights.shape) == (3, 1)
        assert weights.max() > 0.2


def test_the_picture(opened, tmp_path, capsys):
    kind, run, folder = opened
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    command = ["visualize", "objects", "--config", f"{SHAPES}:{kind}"]
    command += ["--weights", str(folder / "w.safetensors")]
    photo = str(tmp_path / "photo.png")
    options = str(run.config.model.options.to_dict()).replace(" ", "")
    command += [f"--config.model.options={options}"]
    command += ["--config.data.classes=('a','b','c')", "--output", str(tmp_path / "o.png")]
    cli.run([*command, "--count", "2", "--points", "10,20,90,60", photo])
    assert "objects of 1 image. Wrote" in capsys.readouterr().out
    # The image, two objects and two points.
    assert Image.open(tmp_path / "o.png").width == 5 * (2 * 96 + 8)
    with pytest.raises(UserError, match="96,20 is outside the network's image, 96 pixels wide"):
        cli.run([*command, "--points", "96,20", photo])
    with pytest.raises(UserError, match="--points is X,Y or X,Y,X,Y"):
        cli.run([*command, "--points", "96", photo])


def test_detectors_without_queries_are_named(tmp_path):
    config = configuration.load(f"{SHAPES}:smoke", {"data.classes": ("a",)})
    task = runs.with_weights(config, "none").task
    with pytest.raises(UserError, match="FastestDet has no queries whose attention could be drawn"):
        task.object_attention({}, jnp.zeros((1, 64, 64, 3)), 1)
