"""What is compared with the PyTorch references: one file a family in `families/`.

Each holds, without importing torch:
  PARAMETERS: exact count of every variant of the family, as of the reference with CLASSES classes
    (1000 where there is no CLASSES).
  CASES: what runs against golden files: each variant whose code path differs.
and, importing it where used:
  build(name, case): the reference as a `torch.nn.Module`.
  feature_map(value, case), optional: what a layer of the reference puts out, as [b, h, w, c].
Sizes are small and deep networks cut short: every line of a network runs, in seconds.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from parity import families
from parity.case import Case

GOLDEN = Path(__file__).parent / "golden"


FAMILIES: list[ModuleType] = [
    importlib.import_module(f"parity.families.{module.name}")
    for module in pkgutil.iter_modules(families.__path__)
]
CASES: dict[str, Case] = {n: case for family in FAMILIES for n, case in family.CASES.items()}
PARAMETERS: dict[str, int] = {n: c for family in FAMILIES for n, c in family.PARAMETERS.items()}
LOGITS, GRADIENTS, FEATURES = 240, 6, 60  # how many elements are kept, per tensor


def family(name: str) -> ModuleType:
    """The module that has the case."""
    return next(f for f in FAMILIES if name in f.CASES)


def variant(name: str) -> str:
    """The registry's name of a case's network."""
    return CASES[name].variant or name
