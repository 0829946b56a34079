"""Shared by all tests: private folders for prepared data sets and compiled programs."""

import os
import tempfile
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports TFDS or JAX: nothing of a test run may land in the user's home. Worker
# processes of pytest-xdist inherit the folder of the process that started them.
_SCRATCH = os.environ.setdefault("JAXVISION_TEST_SCRATCH", tempfile.mkdtemp(prefix="jaxvision-"))
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["TFDS_DATA_DIR"] = str(Path(_SCRATCH) / _WORKER / "tfds")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(_SCRATCH) / "xla")

# From here on their functions check the shapes that they are annotated with. (Not the Flax modules:
# Flax wraps their methods itself.)
install_import_hook(
    ["jaxvision.ops", "jaxvision.losses", "jaxvision.metrics", "jaxvision.data.augment"],
    "beartype.beartype",
)

SHARED = Path(
    os.environ.get("JAXVISION_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets and weights that are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data sets in {SHARED} (set JAXVISION_SHARED_DATA)")
    return SHARED


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Removes the scratch folder, in the process that made it."""
    import shutil

    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(_SCRATCH, ignore_errors=True)
