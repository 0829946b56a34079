"""What a kind of annotation is: everything that is asked of it between the disk and the loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Int
from ml_collections import ConfigDict

from jaxvision.data.geometry import Geometry
from jaxvision.data.headers import MAX_PIXELS
from jaxvision.data.motion import Joint, Motion
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """What decoding and padding need to know of the data.

    Attributes:
      num_classes: labels are checked against it; 0: they are not.
      void: values in masks, as they are stored, that stand for no class.
      mask_values: value of each class in masks, in order; none: 0, 1, ...
      mask_colours: colour of each class in masks, alike; none: masks have one channel.
      max_image_pixels: that an image or a mask may declare.
      max_instances: objects of a record that a batch holds; records of fewer are padded to it.
      max_proposals: that a batch holds of a record, alike.
      max_caption: bytes of a caption, alike.
      max_captions: of a record that a batch holds, alike.
      max_tokens: of a caption, alike, what begins and ends it among them.
      tokenizer: of captions, once it is known.
    """

    num_classes: int = 0
    void: tuple[int, ...] = ()
    mask_values: tuple[int, ...] = ()
    mask_colours: tuple[tuple[int, int, int], ...] = ()
    max_image_pixels: int = MAX_PIXELS
    max_instances: int = 100
    max_proposals: int = 300
    max_caption: int = 512
    max_captions: int = 5
    max_tokens: int = 32
    tokenizer: Tokenizer | None = None


class FaultyRecord(UserError):
    """What is wrong with a record may be wrong with many of a data set, which are counted.

    Attributes:
      fault: what they have in common, as in "images without a caption".
    """

    def __init__(self, fault: str, text: str):
        super().__init__(text)
        self.fault = fault


class Kind(ABC):
    """A kind of annotation. Its methods are pure; what is written here suits one without a place.

    Attributes:
      record_keys: of a record on the host; the first is there if the annotation is.
      batch_keys: of a batch.
      forms: keys of a source's record, and of what each is a form: it is not looked at where that
        is left out.
      placed: whether it lies on the image and has to follow it.
      joins: whether `join_on_device` makes one of those of several images.
      required: whether a record without it is refused by whoever asks for it.
    """

    record_keys: tuple[str, ...]
    batch_keys: tuple[str, ...]
    forms: Mapping[str, str] = {}
    placed = False
    joins = False
    required = False

    def present(self, record: Record) -> bool:
        """Whether a record of a source or of the host has this annotation."""
        return self.record_keys[0] in record

    @abstractmethod
    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        """The annotation of a source's record as arrays, checked without a look at the image.

        Raises:
          CorruptImageError: it cannot be decoded.
          UserError: it is wrong; `name` says whose it is.
        """

    def survey(self, records: Iterable[tuple[Record, str]], settings: Settings) -> None:
        """Looks whether a source's records as a whole suit the settings.

        Args:
          records: (record, name), as few as possible of which are read.

        Raises:
          UserError: they do not.
        """
        return None

    def vocabulary(self, data: ConfigDict, source: Any | None) -> dict[str, Any] | None:
        """What a run has to remember of the texts that it is trained on, `Facts.vocabulary`.

        Args:
          data: the group of a configuration.
          source: the records to train on; None: what is known without them is wanted.

        Raises:
          UserError: there are no texts, or wrong ones.
        """
        return None

    def check_turned(
        self, record: Record, found: Mapping[str, Any], turn: int, size: tuple[int, ...], name: str
    ) -> None:
        """Looks whether what `decode` gave was turned as its image was.

        Args:
          record: of the source.
          found: what `decode` gave of it.
          turn: the EXIF orientation (2 to 8) from which the image was turned upright.
          size: (height, width) of the upright image.
          name: of the record.

        Raises:
          UserError: it lies on the image as that was stored.
        """
        return None

    def check(self, found: dict[str, Any], size: tuple[int, ...], name: str) -> dict[str, Any]:
        """What `decode` gave, fitted to an image of `size`.

        Raises:
          UserError: it does not fit.
        """
        return found

    def move(self, record: Record, geometry: Geometry) -> dict[str, Any]:
        """What changes of it when its image is moved."""
        return {}

    def select(self, record: Record, kept: Bool[np.ndarray, " n"]) -> dict[str, Any]:
        """What changes of it when of an image's objects only some are kept."""
        return {}

    def draw(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        """What changes of a record for an epoch of training, of which something is drawn."""
        return {}

    def left_out(self, record: Record, settings: Settings) -> int:
        """How many objects of a record `pad` leaves out, because they are more than its limit."""
        return 0

    @abstractmethod
    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        """The arrays of a batch's row, of shapes that are the same for all records.

        Raises:
          UserError: it is larger than its limit.
        """

    def blank(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Its part of a row that stands for no record, shaped as in another row."""
        return {key: np.zeros_like(row[key]) for key in self.batch_keys if key in row}

    def classes(self, record: Record) -> Int[np.ndarray, " n"] | None:
        """The classes of a decoded record, in any order, one as often as there are objects of it.

        None: it says nothing of them.
        """
        return None

    def texts(self, record: Record) -> tuple[str, ...]:
        """The texts of a decoded record."""
        return ()

    def class_shares(self, batch: Mapping[str, Array], num_classes: int) -> Array | None:
        """How far each image of a batch is of each class, f32 [b, k]; None: it does not say.

        What mixes images mixes these.
        """
        return None

    def move_on_device(self, batch: Mapping[str, Array], motion: Motion) -> dict[str, Array]:
        """What changes of it when a batch of images is moved on the device."""
        return {}

    def join_on_device(self, batch: Mapping[str, Array], joint: Joint) -> dict[str, Array]:
        """What changes of it when each image is made of several of its batch; see `joins`.

        Raises:
          UserError: something of it cannot be joined.
        """
        return {}
