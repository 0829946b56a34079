"""The Inception of the FID: torchvision's, whose blocks pool as TensorFlow's file of 2015-12-05."""

from functools import partial
from unittest import mock

from parity.references import torchvision
from torch.nn import functional

_mean, _max = functional.avg_pool2d, functional.max_pool2d


def _with_pool(block, pool):
    """The block's forward in which means are taken by `pool`."""
    own = block.forward

    def forward(x):
        with mock.patch.object(functional, "avg_pool2d", pool):
            return own(x)

    return forward


def inception_fid(classes):
    network = torchvision().models.inception_v3(
        num_classes=classes, aux_logits=False, init_weights=False
    )
    for name, block in network.named_children():
        if name == "Mixed_7c":
            block.forward = _with_pool(block, _max)
        elif name.startswith("Mixed"):
            block.forward = _with_pool(block, partial(_mean, count_include_pad=False))
    return network
