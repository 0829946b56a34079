"""What detectors show of their way: `jaxvision visualize stages`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import cli, models, runs
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.tasks import configuration

TINY = {"encoder_options": {"depths": (1, 1)}, "upsampling": (8,), "head_width": 8, "keypoints": 2}


@pytest.mark.parametrize(
    ("name", "options", "heats"),
    [("maskrcnn_resnet50_fpn", None, 3), ("centernet_pose_resnet18", TINY, 3)],
)
def test_the_picture(name, options, heats, tmp_path, capsys):
    config = configuration.load("configs/instances/shapes.py:smoke")
    options = config.model.options.to_dict() if options is None else options
    network = models.create(name, 3, **options)
    image = jnp.zeros((1, 64, 96, 3))
    variables = jax.jit(network.init)(jax.random.key(0), image)
    torch_weights.save(tmp_path / "w.safetensors", variables, models.variant(name).export)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    photo = str(tmp_path / "photo.png")
    Image.fromarray(pixels).save(photo)
    command = ["visualize", "stages", "--config", "configs/instances/shapes.py:smoke"]
    command += ["--weights", str(tmp_path / "w.safetensors"), f"--config.model.name={name}"]
    command += [f"--config.model.options={str(options).replace(' ', '')}"]
    command += ["--config.data.classes=('a','b','c')", "--output", str(tmp_path / "o.png")]
    cli.run([*command, "--count", "2", photo])
    assert "stages of 1 image. Wrote" in capsys.readouterr().out
    proposals = name.startswith("maskrcnn")
    tiles = 1 + heats + proposals + 2
    assert Image.open(tmp_path / "o.png").width == min(tiles, 8) * (2 * 96 + 8)
    with pytest.raises(UserError, match="--count=0 is at least 1"):
        cli.run([*command, "--count", "0", photo])


def test_what_is_seen_on_the_way():
    config = configuration.load("configs/instances/shapes.py:smoke", {"data.classes": ("a", "b")})
    task = runs.with_weights(config, "none").task
    variables = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    seen = jax.jit(task.stages)(variables, jnp.zeros((1, 64, 64, 3), jnp.uint8))
    shapes = [seen[f"heat/objectness {k}"].shape for k in range(3)]
    assert shapes == [(1, 8, 8), (1, 4, 4), (1, 2, 2)]
    assert seen["proposals"].shape == (1, 20, 4)
    assert seen["masks"].shape == (1, 10, 14, 14)
    assert all(seen[f"heat/objectness {k}"].min() >= 0 for k in range(3))


def test_networks_without_stages_are_named():
    config = configuration.load("configs/detection/shapes.py:smoke", {"data.classes": ("a",)})
    task = runs.with_weights(config, "none").task
    with pytest.raises(UserError, match="FastestDet has no stages that could be drawn"):
        task.stages({}, jnp.zeros((1, 64, 64, 3), jnp.uint8))
