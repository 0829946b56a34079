"""Kinds of annotation, one file each: what a label, a mask, an object or a caption is.

Whoever handles records asks these objects. Users add a kind of theirs by `KINDS.add(name, kind)`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxvision.data.annotations.caption import Caption
from jaxvision.data.annotations.instances import Instances
from jaxvision.data.annotations.kind import FaultyRecord, Kind, Settings
from jaxvision.data.annotations.label import Label
from jaxvision.data.annotations.labels import Labels
from jaxvision.data.annotations.proposals import Proposals
from jaxvision.data.annotations.segmentation import Segmentation
from jaxvision.registry import Registry

# Where records have several, class-balanced sampling looks at the first.
KINDS: Registry[Kind] = Registry(
    "annotation",
    {
        "segmentation": Segmentation(),
        "instances": Instances(),
        "proposals": Proposals(),
        "label": Label(),
        "labels": Labels(),
        "caption": Caption(),
    },
)

__all__ = ["KINDS", "FaultyRecord", "Kind", "Settings", "in_batch", "named"]


def named(names: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of these names, in the registry's order.

    Raises:
      UserError: there is no such kind.
    """
    wanted = {name: KINDS[name] for name in names}
    return tuple(kind for name, kind in KINDS.items() if name in wanted)


def in_batch(batch: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The kinds of which a batch has something."""
    return tuple(k for k in KINDS.values() if any(key in batch for key in k.batch_keys))
