"""Several views of one image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvision.data.transforms.pipeline import Pipeline, Record, Step, compose, register
from jaxvision.errors import UserError


def _views_random(parameters: Mapping[str, Any]) -> bool:
    return any(compose(view["transforms"]).random for view in parameters["views"].values())


@dataclass(frozen=True)
class _Views:
    """The step of `views`: by batch key, how many and by which transforms."""

    pipelines: Mapping[str, tuple[int, Pipeline]]
    keep_image: bool

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        out = {k: v for k, v in record.items() if k != "image" or self.keep_image}
        for key, (count, pipeline) in self.pipelines.items():
            drawn = [pipeline({"image": record["image"]}, rng)["image"] for _ in range(count)]
            if len({view.shape for view in drawn}) > 1:
                sizes = sorted({f"{v.shape[1]}x{v.shape[0]}" for v in drawn})
                raise UserError(
                    f"The images of {key} differ in size ({' and '.join(sizes)}); "
                    "its transforms must bring them to one."
                )
            out[key] = np.stack(drawn)
        return out


@register("views", random=_views_random, factory=True)
def views(*, views: Mapping[str, Mapping[str, Any]], keep_image: bool = False) -> Step:
    """Several crops of one image, each drawn with random numbers of its own.

    `{"global": {"count": 2, "transforms": [...]}, "local": {...}}` gives `views_global`, uint8
    [2, h, w, c], and `views_local`. Annotations stay those of the image.

    Args:
      views: by name, how many and by which transforms.
      keep_image: whether the record keeps `image`.

    Raises:
      UserError: a view has no count or transforms, or they are wrong.
    """
    pipelines = {}
    for name, view in views.items():
        if set(view) != {"count", "transforms"}:
            raise UserError(
                f"View {name!r} is given by {sorted(view)}; expected 'count' and 'transforms'."
            )
        count = view["count"]
        if not isinstance(count, int) or count < 1:
            raise UserError(f"View {name!r} has the count {count!r}; expected 1 or more.")
        pipeline = compose(view["transforms"], ())
        if pipeline.buckets is not None:
            raise UserError(f"View {name!r} has buckets; all views have one shape.")
        pipelines[f"views_{name}"] = (count, pipeline)

    return _Views(pipelines, keep_image)
