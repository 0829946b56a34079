"""The numbers that its author's weights of FastestDet are known to reach."""

import json
from pathlib import Path

import pytest

from jaxvision import runs
from jaxvision.metrics.detection import COCO_METRICS
from jaxvision.tasks import configuration

CONFIG = Path(__file__).parents[2] / "configs" / "detection" / "fastestdet_coco.py"


def evaluated(shared_data, folder, **data):
    config = configuration.load(str(CONFIG))
    config.data.dir = str(shared_data / folder)
    for key, value in data.items():
        config.data[key] = value
    config.eval.batch_size = 32
    (weights,) = (shared_data / "weights" / "fastestdet_coco").glob("*.pth")
    metrics, _ = runs.with_weights(config, str(weights)).evaluate()
    return metrics


def test_all_twelve_numbers_on_part_of_coco(shared_data):
    metrics = evaluated(shared_data, "coco_mini_val")
    parity = shared_data / "coco_mini_val" / "evaluator_parity" / "expected.json"
    expected = json.loads(parity.read_text())["bbox_fastestdet"]["stats"]
    assert [metrics[name] for name in COCO_METRICS] == pytest.approx(expected, abs=2e-6)


@pytest.mark.slow
def test_labels_in_text_files(shared_data):
    options = {
        "images": "images/{split}2017",
        "labels": "object_detection/labels/{split}2017",
    }
    metrics = evaluated(shared_data, "coco128_val", source="yolo", options=options)
    assert metrics["ap"] == pytest.approx(0.19067, abs=5e-6)
    assert metrics["ap50"] == pytest.approx(0.35674, abs=5e-6)
