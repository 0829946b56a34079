"""What data sets that are drawn from a seed have in common."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from jaxvision.errors import UserError

# Test records are drawn from indices that no training record reaches, so the two parts are
# disjoint, and a test set stays the same when the number of training records changes.
FIRST_TEST_INDEX = 2**31


@dataclasses.dataclass(kw_only=True)
class DrawnConfig(tfds.core.BuilderConfig):
    """Which records to draw. The configuration's name follows from the fields.

    Attributes:
      size: side of the records in pixels or voxels, at least 16.
      train: number of training records.
      test: number of test records.
      seed: the seed of all records, at least 0.
    """

    KIND: ClassVar[str]
    UNIT: ClassVar[str]
    LARGEST: ClassVar[int]

    name: str = dataclasses.field(default="", init=False)
    size: int = 64
    train: int = 4000
    test: int = 1000
    seed: int = 0

    def __post_init__(self):
        self.name = checked_name(self.KIND, self, self.UNIT, self.LARGEST)


# (mypy sees no type of TFDS.)
class DrawnBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore
    """A TFDS builder that draws its records.

    Its configuration is a `DrawnConfig`, and records are independent, so they are not shuffled.
    """

    # Where the package lies. TFDS 4.9.10 works it out with importlib_resources, which it requires
    # only of Python 3.8 (https://github.com/tensorflow/datasets, setup.py).
    code_path = epath.Path(__file__)
    BUILDER_CONFIGS: ClassVar[list[DrawnConfig]]
    builder_config: Any

    def __init__(self, *, config: DrawnConfig | str | None = None, **kwargs: Any):
        # TFDS knows its own configurations by identity, so an equal one is replaced by that.
        config = next((own for own in self.BUILDER_CONFIGS if own == config), config)
        super().__init__(config=config, **kwargs)

    @abstractmethod
    def record(self, seed: int, index: int, size: int) -> dict[str, Any]:
        """One record, as its features are encoded."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing to download
        config = self.builder_config
        return {
            "train": self._generate_examples(0, config.train),
            "test": self._generate_examples(FIRST_TEST_INDEX, config.test),
        }

    def _generate_examples(self, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for index in range(first, first + count):
            yield index, self.record(config.seed, index, config.size)


def checked_name(kind: str, config: Any, unit: str, largest: int) -> str:
    """The name of a configuration with the fields size, train, test and seed.

    Args:
      kind: the data set, named in errors.
      config: its fields are checked.
      unit: in which size is counted.
      largest: the size that is still allowed.

    Raises:
      UserError: a field is no integer or out of range.
    """
    for field, least, limit in (
        ("size", 16, largest),
        ("train", 1, FIRST_TEST_INDEX),
        ("test", 1, FIRST_TEST_INDEX),
        ("seed", 0, 2**63),
    ):
        value = getattr(config, field)
        if not isinstance(value, int) or not least <= value <= limit:
            raise UserError(
                f"{kind}: {field} is {value!r}; expected an integer from {least} to {limit}."
            )
    return f"{config.size}{unit}_{config.train}_{config.test}_seed{config.seed}"
