"""What is done with trained networks: open a run, evaluate, predict, sample.

    run = jaxvision.runs.open("runs/shapes")
    run.config, run.facts, run.task, run.model, run.variables
    predictions = run.predict([image, "photo.jpg"])
    metrics, _ = run.evaluate("test[:50%]")

Published weights are opened the same way: `runs.published("resnet50")`.
"""

from jaxvision.runs.evaluating import evaluate
from jaxvision.runs.predicting import Prediction, image_files, predict_files, write_predictions
from jaxvision.runs.run import Run, open, published, stored_config, with_weights

__all__ = [
    "Prediction",
    "Run",
    "evaluate",
    "image_files",
    "open",
    "predict_files",
    "published",
    "stored_config",
    "with_weights",
    "write_predictions",
]
