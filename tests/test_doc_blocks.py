"""Every Python block of the documentation runs, one after another on each page.

What a page takes for granted stands in `BEFORE`; `SMALLER` replaces networks and sizes that take
long. Blocks that set keys of a `config` must leave a valid configuration.
"""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvision import models, pretrained
from jaxvision.interop import published
from jaxvision.tasks import TASKS, configuration, default_config

ROOT = Path(__file__).parents[1]
# Whose blocks test_docs.py, test_plugins.py, test_tutorial.py and report/test_page.py run.
ELSEWHERE = {"python", "config_file", "own_images", "extending", "reports", "tutorial"}
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python\n" in path.read_text() and path.stem not in ELSEWHERE
]
TASK_OF = {"data": "classification", "own_boxes": "detection"}
NETWORK = """
import jax, jax.export, jax.numpy as jnp
import numpy as np
from jaxvision import models
"""
BEFORE = {
    "autoencoding": NETWORK
    + """
network = models.create("vae_mlp", hidden=8, latent=2, size=(8, 8))
images = jnp.zeros((2, 8, 8, 1))
variables = network.init(jax.random.key(0), images)
training_images = np.random.default_rng(0).integers(0, 256, (64, 8, 98))
test_images = training_images[:16]
""",
    "captioning": NETWORK + "images = jnp.zeros((1, 32, 32, 3))\n",
    "data": """
import numpy as np
batch = {"geometry": np.tile(np.eye(3), (2, 1, 1)), "image_size": np.full((2, 2), 8)}
image, i = np.zeros((8, 8, 3)), 1
segmentation, boxes = np.zeros((8, 8), np.int32), np.array([[1.0, 2, 3, 4]])
""",
    "deployment": NETWORK
    + """
import json
from jaxvision.data import tokenizer

(batch,) = jax.export.symbolic_shape("b")
images = jax.ShapeDtypeStruct((batch, 8, 8, 1), jnp.uint8)
program = jax.export.export(jax.jit(lambda x: {"label": x.max((1, 2, 3))}))(images)
open("digits.jaxexport", "wb").write(program.serialize())
words = tokenizer.train([f"word{chr(97 + n)}" for n in range(20)], "word", size=30)
card = {"tokenizer": json.loads(words.definition), "tokens": {"end": words.end}}
json.dump(card, open("captions.json", "w"))
""",
    "models": "import jax.numpy as jnp\nimages = jnp.zeros((1, 32, 32, 3))\n",
    "segmentation": NETWORK,
}
SMALLER = {
    "README": [('"resnet50", num', '"resnet20_cifar", num'), ("224, 224", "32, 32")],
    "autoencoding": [("60000, 784", "64, 784"), ("10000, 784", "16, 784")],
    "models": [
        ('"resnet50", num', '"resnet20_cifar", num'),
        ("224, 224", "32, 32"),
        ('"resnet50", "IMAGENET1K_V1", num', '"vit_tiny_patch16_224", depth=2, num'),
    ],
}


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M)


def without_network(name, weights="default", **options):
    """What `pretrained.create` would give, with fresh weights of a small network."""
    small = {
        "vit_gpt2": {
            "encoder_options": {"depth": 1, "width": 32, "num_heads": 2, "patch_size": 16},
            **{"width": 32, "depth": 1, "num_heads": 2, "hidden": 32, "num_classes": 50257},
        }
    }
    network = models.create(name, **small.get(name, {}), **options)
    image = np.zeros((1, 32, 32, 3), np.float32)
    return network, jax.jit(network.init)(jax.random.key(0), image)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "create", without_network)
    monkeypatch.setattr(published, "hub_file", lambda hub, names: tmp_path / names[0])
    task = TASK_OF.get(page.stem, page.stem if page.stem in TASKS else "classification")
    config = default_config(task)
    namespace = {"config": config}
    exec(BEFORE.get(page.stem, ""), namespace)
    for block in blocks(page):
        # What docs/python.md does with a run of its own, and tests/runs/test_onnx.py with a graph.
        if "runs/shapes" in block or "import onnxruntime" in block:
            continue
        for long, short in SMALLER.get(page.stem, []):
            block = block.replace(long, short)
        exec(compile(block, page.name, "exec"), namespace)
        configuration.validate(config)


def test_no_page_is_left_out():
    assert len(PAGES) > 10
    assert all((ROOT / "docs" / f"{name}.md").is_file() for name in ELSEWHERE)
