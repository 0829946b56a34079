"""The reduced form of every task is trained and served."""

import io
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serve.serving import ask, post, served

from jaxvision import runs
from jaxvision.serve import Service
from jaxvision.tasks import configuration
from jaxvision.train import run

ROOT = Path(__file__).parents[2]
SMOKES = {
    "captioning/shapes": ["words", "numbers"],
    "detection/shapes": ["objects"],
    "instances/shapes": ["objects"],
    "localization/shapes": ["objects", "bars"],
    "multilabel/shapes": ["bars"],
    "panoptic/shapes": ["overlay"],
    "pose/shapes": ["objects"],
    "pretraining/digits_dino": ["numbers"],
    "pretraining/dvae": ["pictures", "numbers"],
    "segmentation/shapes_unet": ["overlay"],
    "segmentation/volumes_vnet": ["pictures"],
    "restoration/photographs": ["pictures", "numbers"],
    "generation/digits_dcgan": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKES)
def test_every_task_is_served(name, tmp_path):
    spec = f"{ROOT / 'configs' / name}.py:smoke"
    run(configuration.load(spec, {"log.report": False}), tmp_path / "run")
    service = Service(runs.open(tmp_path / "run"), lambda what: nullcontext())
    service.warm()
    with served(service) as port:
        about = json.loads(ask(port, "GET", "/about")[2])
        if SMOKES[name] is None:
            assert not about["predicts"]
            status, found = post(port, "/sample", b'{"count": 2, "seed": 3}')
            assert status == 200
            assert len(found["images"]) == 2
            return
        content = io.BytesIO()
        if len(about["image_size"]) == 4:
            np.save(content, np.zeros(about["image_size"][:-1], np.uint8))
        else:
            levels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
            Image.fromarray(levels).save(content, "PNG")
        data = content.getvalue()
        status, found = post(port, "/predict", data)
        assert (status, [part["kind"] for part in found["shown"]]) == (200, SMOKES[name]), found
        if about["looks"]:
            status, found = post(port, "/look", data)
            assert status == 200
            assert found["shown"][0]["picture"]["width"] == 90
