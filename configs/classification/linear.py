"""One linear layer on the pixels of Fashion-MNIST: multinomial softmax, or the multiclass SVM.

    python train.py --config configs/classification/linear.py --config.data.dir=DIR
    python train.py --config configs/classification/linear.py:svm --config.data.dir=DIR

DIR holds the four idx files of https://github.com/zalandoresearch/fashion-mnist. `:softmax`, the
default, minimises the cross-entropy, `:svm` the multiclass hinge of Weston and Watkins 1999;
`:smoke` runs on the built-in digits. `jaxvision classify softmax` and `svm` fit the same models to
convergence.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import fashion_mnist
from jaxvision.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("softmax", "svm", "smoke"))
    config = default_config("classification")
    fashion_mnist(config)
    config.model.name = "linear"
    config.classification.l2 = 1e-4
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 128
    config.train.duration = "10 epochs"
    config.train.log_every = 100
    if variant == "svm":
        config.classification.loss = "hinge"
        config.classification.l2 = 1e-3
    if variant == "smoke":
        config.data.source, config.data.name, config.data.dir = "tfds", "digits", ""
        config.data.classes = ()
        config.train.duration = "2 epochs"
    return config
