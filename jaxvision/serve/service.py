"""What a served network does: bytes of a photograph in, what is to be shown as JSON out."""

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxvision import __version__, tasks
from jaxvision.data.codecs import CorruptImageError, decode_image
from jaxvision.errors import UserError, unknown
from jaxvision.runs import Prediction, Run
from jaxvision.runs.predicting import Waiting, one_by_one
from jaxvision.runs.sampling import labels_of, sample
from jaxvision.serve import encoding
from jaxvision.serve.looking import Looking, looking_of
from jaxvision.tasks.sampling import Control, Sampling, row_keys

MOST_PIXELS = 2**21  # of what a network is given; larger photographs are made smaller before
MOST_SAMPLES = 64  # of a request
_PROGRAMS = 8  # for samples with other settings, that are kept
_SEEDS = 2**31


class Service:
    """A trained network that is asked by people; it is used by one thread at a time.

    Args:
      run: the network.
      compiling: entered with a text while a program is compiled.
      as_is: whether photographs are given to the network as they are; see `fitted`.

    Raises:
      UserError: the network neither predicts nor makes images, or its weights do not fit.
    """

    def __init__(self, run: Run, compiling: Waiting, as_is: bool = False):
        run = self.run = run if as_is else fitted(run)
        self._last: tuple[bytes, Any] = b"", None
        self._report = tasks.report(run.config.task)
        tasks.require(run.task, ("predict", "generate"), "Serving")
        self._predict, self._compiled = None, 0.0
        if hasattr(run.task, "predict") and hasattr(self._report, "summary"):
            self._predict = one_by_one(run, self._timed(compiling))
        self.controls = self._controls()
        if self._predict is None and self.controls is None:
            raise UserError(
                f"{run.config.model.name} neither says anything of photographs nor makes images: "
                "there is nothing to serve."
            )
        self._shape = run.image_shape
        self._parameters = sum(
            math.prod(x.shape) for x in jax.tree.leaves(run.variables.get("params", {}))
        )

    def _timed(self, compiling: Waiting) -> Waiting:
        """The same, and what compiling takes is added up."""

        @contextlib.contextmanager
        def timed(what: str) -> Iterator[None]:
            start = time.perf_counter()
            with compiling(what):
                yield
            self._compiled += time.perf_counter() - start

        return timed

    def warm(self) -> None:
        """Compiles what the first question needs, and finds out what there is."""
        self.about()
        if self._predict is not None:
            self._predict(np.zeros(self._shape, np.uint8))
        if self.controls is not None:
            self.sample({})

    @cached_property
    def looking(self) -> Looking | None:
        """What shows where the network looks, if anything can."""
        return None if self._predict is None else looking_of(self.run, self._shape)

    @property
    def name(self) -> str:
        """The run's folder without those above it; of weights from elsewhere the network's name."""
        folder = self.run.folder
        return folder.resolve().name if folder else self.run.config.model.name

    def about(self) -> dict[str, Any]:
        """What the page says of the network, and what it offers."""
        run, looking = self.run, self.looking
        return {
            "name": self.name,
            "task": run.config.task,
            "network": run.config.model.name,
            "parameters": self._parameters,
            "step": run.step if run.step >= 0 else None,
            "classes": list(run.task.class_names),
            "image_size": list(self._shape),
            "predicts": self._predict is not None,
            "looks": None if looking is None else looking.title,
            "looks_for": [] if looking is None else list(looking.names),
            "samples": self.controls
            and {name: asdict(control) for name, control in self.controls.items()},
            "most_samples": MOST_SAMPLES,
            "version": __version__,
        }

    def predict(self, data: bytes) -> dict[str, Any]:
        """What the network says of a photograph.

        Args:
          data: contents of its file, see `jaxvision.data.codecs.decode_image`.

        Returns:
          What `jaxvision predict` writes of it to predictions.json; `photograph`, the picture as it
          was read; `shown`, the parts for the page; `seconds` that the network took, without what
          was compiled; `seen`, the (width, height) that it was given; `reduced`, those to which the
          photograph was made smaller before, if it was.

        Raises:
          UserError: it is no photograph, or the network cannot take it.
        """
        task, report = self.run.task, self._report
        prediction, seconds, reduced = self._predicted(data)
        parts = report.shown(task, prediction) if hasattr(report, "shown") else []
        image = prediction.image
        flat = image if image.ndim == 3 else image[len(image) // 2]
        return encoding.finite(
            {
                **report.summary(task, prediction),
                "seconds": round(seconds, 4),
                "photograph": encoding.picture(flat),
                "seen": list(prediction.network_image.shape[-2:-4:-1]),
                "reduced": reduced,
                "shown": [encoding.part(one) for one in parts],
            }
        )

    def look(self, data: bytes, name: str = "") -> dict[str, Any]:
        """Where the network looks in a photograph: `shown`, an overlay.

        Args:
          data: see `predict`.
          name: the class of which evidence is wanted; "" is the likeliest.

        Raises:
          UserError: see `predict`; the network does not say, or there is no such class.
        """
        if self.looking is None:
            raise UserError("This network does not say where it looks.")
        if name and name not in self.looking.names:
            raise unknown("class", name, self.looking.names)
        label = self.looking.names.index(name) if name else None
        prediction, _, _ = self._predicted(data)
        return {"shown": [encoding.part(self.looking.overlay(prediction, label))]}

    def _predicted(self, data: bytes) -> tuple[Prediction, float, list[int] | None]:
        """(prediction, seconds, size to which the photograph was made smaller); the last is kept,
        for what is asked of it next."""
        digest = hashlib.sha256(data).digest()
        if self._last[0] != digest:
            if self._predict is None:
                raise UserError("This network takes no photographs; it makes images.")
            image, reduced = self._reduced(self._decoded(data))
            start = time.perf_counter() - self._compiled
            prediction = self._predict(image)
            seconds = time.perf_counter() - self._compiled - start
            self._last = digest, (prediction, seconds, reduced)
        return self._last[1]

    def _decoded(self, data: bytes) -> np.ndarray:
        settings = self.run.config.data
        try:
            return decode_image(data, settings.channels, "", settings.max_image_pixels)
        except CorruptImageError as error:
            raise UserError(f"This cannot be read as an image: {error.reason}.") from error

    def _reduced(self, image: np.ndarray) -> tuple[np.ndarray, list[int] | None]:
        """The image, smaller where the network would be given more than `MOST_PIXELS` of it."""
        expected = len(self._shape)
        if image.ndim != expected:
            kinds = {3: "an image", 4: "a volume (.npy)"}
            raise UserError(f"This network takes {kinds[expected]}, not {kinds[image.ndim]}.")
        if image.ndim == 4 or self.run.one_size:
            return image, None
        given = math.prod(self.run.prepared_shape(image.shape)[:-1])
        if given <= MOST_PIXELS:
            return image, None
        side = int(max(image.shape[:2]) * math.sqrt(MOST_PIXELS / given))
        small = encoding.shrunk(image, max(1, side))
        return small, [small.shape[1], small.shape[0]]

    def _controls(self) -> dict[str, Control] | None:
        """What may be asked of samples; None where the network makes none."""
        task: Any = self.run.task
        if not hasattr(task, "generate"):
            return None
        try:
            jax.eval_shape(lambda: task.latents(row_keys(jax.random.key(0), 1)))
        except UserError:  # its codes have no prior
            return None
        return task.controls()

    def sample(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """New images: `images`, pictures, and the `seconds` they took.

        Image k of a seed is the one that `jaxvision sample` draws. They are made one at a time, so
        that any number needs one program.

        Args:
          asked: `seed`, `first` (how many of the seed's images are left out), `count`, `labels`
            (names of classes, in turn), and what `controls` names.

        Raises:
          UserError: something is asked that does not exist.
        """
        if self.controls is None:
            raise UserError("This network makes no images.")
        settings = [one.name for one in fields(Sampling) if one.name in self.controls]
        known = ["seed", "first", "count", *(["labels"] if "labels" in self.controls else [])]
        for name in asked:
            if name not in (*known, *settings):
                raise unknown("setting", str(name), (*known, *settings))
        seed = _whole(asked, "seed", 0, _SEEDS - 1, 0)
        first = _whole(asked, "first", 0, _SEEDS - 1, 0)
        count = _whole(asked, "count", 1, MOST_SAMPLES, 1)
        names = asked.get("labels", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError("labels is a list of names of classes.")
        labels = labels_of(names, self.run.task.class_names)
        chosen = {name: _setting(name, self.controls[name], asked) for name in settings}
        wanted = Sampling(**{name: value for name, value in chosen.items() if value is not None})
        start = time.perf_counter()
        images = []
        for number in range(first, first + count):
            images += list(sample(self.run, 1, seed, labels, wanted, number))
        seconds = time.perf_counter() - start
        for program in list(self.run.programs)[:-_PROGRAMS]:
            del self.run.programs[program]
        return {
            "images": [encoding.picture(image) for image in images],
            "seconds": round(seconds, 4),
        }


def fitted(run: Run) -> Run:
    """The run with photographs fitted into the size of its training, with grey around.

    So it is where the preparation leaves them in the size that they have, and what the network
    learnt is of the size of images: otherwise a photograph from elsewhere would be of another scale
    than all that it has seen, and each size a program to compile. Others are given back as they
    are.
    """
    task, shape = run.task, run.image_shape if hasattr(run.task, "predict") else ()
    if task.any_size or run.folder is None or len(shape) != 3:
        return run
    sizes = ((600, 900), (1200, 1800))
    one, other = (run.prepared_shape((*size, run.config.data.channels)) for size in sizes)
    if one == other:
        return run
    config = copy.deepcopy(run.config)
    letterbox = {"name": "letterbox", "size": tuple(shape[:2]), "fill": _GREY}
    config.data.eval_transforms = (*config.data.eval_transforms, letterbox)
    return replace(run, config=config)


_GREY = 114  # as of detectors that fit photographs into a square


def _whole(asked: Mapping[str, Any], name: str, least: int, most: int, otherwise: int) -> int:
    """Raises:
    UserError: it is no whole number in these limits.
    """
    value = asked.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"{name} is a whole number from {least} to {most}, not {value!r}.")
    return value


def _setting(name: str, control: Control, asked: Mapping[str, Any]) -> Any:
    """The value that is asked for; None if none is.

    Raises:
      UserError: it is outside the control's limits, or none of its choices.
    """
    if (value := asked.get(name)) is None or value == control.default:
        return None
    if control.choices:
        if value not in control.choices:
            raise unknown(name, str(value), control.choices)
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not control.least <= value <= control.most:
        limits = f"from {control.least:g} to {control.most:g}"
        raise UserError(f"{name} is a number {limits}, not {value!r}.")
    if isinstance(control.default, int):
        return _whole(asked, name, int(control.least), int(control.most), 0)
    return float(value)
