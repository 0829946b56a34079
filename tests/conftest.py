"""Shared by all tests: private folders for prepared data sets and compiled programs."""

import gc
import os
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]
from jaxtyping import install_import_hook

from jaxvision import common_keys

# Before anything imports TFDS or JAX: nothing of a test run may land in the user's home. Worker
# processes of pytest-xdist inherit the folder of the process that started them.
_SCRATCH = os.environ.setdefault("JAXVISION_TEST_SCRATCH", tempfile.mkdtemp(prefix="jaxvision-"))
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["TFDS_DATA_DIR"] = str(Path(_SCRATCH) / _WORKER / "tfds")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(_SCRATCH) / "xla")

# Most of a test's time is the compiler's; how fast its programs then are does not matter here.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jax").startswith("0.10."):  # later ones have no other way to compile fusions
    _FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])

# From here on their functions check the shapes that they are annotated with. (Not the Flax modules:
# Flax wraps their methods itself.)
install_import_hook(
    [
        "jaxvision.ops",
        "jaxvision.losses",
        "jaxvision.metrics",
        "jaxvision.data.augment",
        "jaxvision.classical",
        "jaxvision.layers.positions",
        "jaxvision.search.children",
    ],
    "beartype.beartype",
)

# A report of every run would cost a tenth of the suite; tests of reports ask for them.
common_keys.KEYS["log.report"] = replace(common_keys.KEYS["log.report"], default=False)

# Traced programs are many small objects that stay: looking through them all again and again for
# garbage takes a tenth of the time.
gc.set_threshold(20_000, 10, 10)

# Files that take longest, longest first: one that starts last would leave the other workers idle.
LONGEST = (
    "models/test_detectors.py",
    "test_configs.py",
    "models/test_parity.py",
    "train/test_step.py",
    "models/test_published_weights.py",
    "train/test_default.py",
    "train/test_devices.py",
    "train/test_finetuning.py",
    "models/test_registry.py",
    "benchmarks/test_steps.py",
    "benchmarks/test_pipelines.py",
    "models/test_published_segmentation.py",
    "models/test_auxiliary_heads.py",
    "commands/test_classify.py",
    "train/test_kill.py",
    "test_notebooks.py",
)

SHARED = Path(
    os.environ.get("JAXVISION_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
)


# The same examples in every run: a suite that fails by chance teaches nothing.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

# A test that asks for a machine's whole memory fails by itself instead of taking others with it.
if resource is not None:
    resource.setrlimit(resource.RLIMIT_DATA, (12 * 2**30, resource.RLIM_INFINITY))


@pytest.fixture
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    from jaxvision import models

    monkeypatch.setattr(models._REGISTRY, "_entries", dict(models._REGISTRY))


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What a file's tests have traced and compiled is not kept for those of the next.

    Otherwise the garbage collector looks through ever more of it, for seconds each time.
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets and weights that are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data sets in {SHARED} (set JAXVISION_SHARED_DATA)")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the rest stay in their order."""
    tests = Path(__file__).parent
    rank = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Removes the scratch folder, in the process that made it."""
    import shutil

    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(_SCRATCH, ignore_errors=True)
