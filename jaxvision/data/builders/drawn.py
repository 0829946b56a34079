"""What data sets that are drawn from a seed have in common."""

from typing import Any

from jaxvision.errors import UserError

# Test records are drawn from indices that no training record reaches, so the two parts are
# disjoint, and a test set stays the same when the number of training records changes.
FIRST_TEST_INDEX = 2**31


def checked_name(kind: str, config: Any, unit: str, largest: int) -> str:
    """The name of a configuration with the fields size, train, test and seed.

    Args:
      kind: of data set, named in errors.
      config: whose fields are checked.
      unit: of its size.
      largest: size.

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
