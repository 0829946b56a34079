"""What a run has to remember of its data, so that predicting and resuming never read them again."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from jaxvision.data.palette import Palette, as_palette
from jaxvision.errors import UserError, unknown


@dataclass(frozen=True)
class Facts:
    """Facts of the data; all of them are optional.

    Attributes:
      class_names: in order.
      category_ids: what a COCO file calls each class; -1 of one that it does not name.
      records: number of records by split, as in `{"train[:90%]": 900}`.
      keypoint_names: in order.
      keypoint_pairs: (left, right) indices, which mirroring exchanges.
      skeleton: pairs of indices of key points between which a line is drawn.
      things: indices of the classes whose objects are told apart; of the others, stuff, an image
        has one segment each. Only data that know the difference say it.
      palette: colours that images are made of, channels from 0 to 255 (`jaxvision.data.palette`).
      vocabulary: of the captions: a tokenizer (`jaxvision.data.tokenizer`), and where it was wanted
        how common their n-grams are (`jaxvision.data.caption_frequencies`).
    """

    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    records: Mapping[str, int] = field(default_factory=dict)
    keypoint_names: tuple[str, ...] = ()
    keypoint_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    things: tuple[int, ...] = ()
    palette: Palette = ()
    vocabulary: Mapping[str, Any] | None = None

    @classmethod
    def of_stream(cls, stream: Any) -> "Facts":
        """What a `jaxvision.data.loader.Stream` shows: its source's facts and number of records."""
        source = stream.source
        given = asdict(facts_of(source))
        given |= {"class_names": tuple(source.class_names), "vocabulary": stream.vocabulary}
        given |= {"palette": stream.palette}
        given |= {"records": {**given["records"], stream.spec: stream.order.count}}
        return cls(**given)

    @property
    def keypoint_order(self) -> tuple[int, ...]:
        """The permutation of key points that mirroring needs."""
        order = list(range(len(self.keypoint_names)))
        for left, right in self.keypoint_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def to_json(self) -> str:
        """As text for people and machines."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Facts":
        """The facts of `to_json`.

        Raises:
          UserError: the text is damaged.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise UserError(f"The facts of the data are damaged: {error}.") from error
        if not isinstance(given, dict):
            raise UserError(f"The facts of the data are damaged: {type(given).__name__}, no table.")
        names = [one.name for one in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("fact of the data", name, names)
        try:
            facts = cls(
                class_names=tuple(map(_text, given.get("class_names", ()))),
                category_ids=tuple(map(int, given.get("category_ids", ()))),
                records={_text(split): int(n) for split, n in given.get("records", {}).items()},
                keypoint_names=tuple(map(_text, given.get("keypoint_names", ()))),
                keypoint_pairs=_pairs(given.get("keypoint_pairs", ())),
                skeleton=_pairs(given.get("skeleton", ())),
                things=tuple(map(int, given.get("things", ()))),
                palette=as_palette(given.get("palette", ())),
                vocabulary=given.get("vocabulary"),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"The facts of the data are damaged: {error}.") from error
        if not (facts.vocabulary is None or isinstance(facts.vocabulary, dict)):
            raise UserError("The facts of the data are damaged: the vocabulary is no table.")
        return facts

    def digest(self) -> str:
        """SHA-256 in hexadecimal; equal facts have equal ones."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def facts_of(source: Any) -> Facts:
    """What a source says of itself beside its class names; sources may leave it out."""
    return getattr(source, "facts", Facts())


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) of the key points that are called so: `left_eye`, `right_eye`; `l_`, `r_`."""
    places = {name: index for index, name in enumerate(names)}
    return tuple(
        (index, places[other])
        for name, index in places.items()
        for left, right in (("left_", "right_"), ("l_", "r_"))
        if name.startswith(left) and (other := right + name.removeprefix(left)) in places
    )


# fmt: off
# Of COCO's persons; left and right are those of the person.
_PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)
_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)
# fmt: on
# By the names that published weights give their classes (`Published.labels`).
OF_LABELS = {
    "coco_person": Facts(
        class_names=("person",),
        keypoint_names=_PERSON,
        keypoint_pairs=mirrored_pairs(_PERSON),
        skeleton=_LIMBS,
    )
}


def _pairs(values: Iterable[Sequence[Any]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(second)) for first, second in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value
