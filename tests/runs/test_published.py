"""The configuration that published weights are used with."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import models, pretrained, runs, tasks
from jaxvision.errors import UserError
from jaxvision.interop.published import published
from jaxvision.pretrained import Weights


def test_of_a_segmentation_network(monkeypatch):
    entry = published("fcn_resnet50")["COCO_WITH_VOC_LABELS_V1"]
    monkeypatch.setattr(pretrained, "read", lambda weights, model: Weights({}, "fcn.pth", entry))
    config = runs.published("fcn_resnet50").config
    assert config.task == "segmentation"
    assert config.data.classes[0] == "background"
    assert len(config.data.classes) == 21
    (resize,) = config.data.eval_transforms
    assert (resize["name"], resize["size"]) == ("resize_shorter", 520)
    assert config.data.channels == 3


def test_a_photo_is_segmented_at_its_aspect_ratio(tmp_path):
    import jax
    import jax.numpy as jnp
    from parity.deterministic import weights

    from jaxvision.interop import torch_weights

    model = models.create("segnet", 4)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = torch_weights.torch_shapes(
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    )
    save_file({n: weights(n, s) for n, s in shapes.items()}, tmp_path / "w.safetensors")
    where = str(tmp_path / "w.safetensors")
    opened = runs.published("segnet", where)
    assert opened.facts.class_names == tuple(f"class {i}" for i in range(4))
    preparation = ({**opened.config.data.eval_transforms[0], "size": 32},)
    opened = runs.published("segnet", where, {"data.eval_transforms": preparation})
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    (one,) = runs.predict_files(opened, [tmp_path / "photo.png"], pad_to=1)
    assert one.outputs["segmentation"].shape == (32, 48)
    (padded,) = runs.predict_files(opened, [tmp_path / "photo.png"])
    assert padded.outputs["segmentation"].shape == (64, 64)
    assert tasks.report("segmentation").labels_of(opened.task, padded).shape == (40, 60)


def test_volumes_need_a_configuration():
    with pytest.raises(UserError, match="vnet is for volumes"):
        runs.published("vnet")
