"""Training: `run(config, workdir)` is the whole job."""

from typing import Any

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """Imports the loop when it is asked for: a step alone needs neither Orbax, Grain nor TFDS."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxvision.train.loop import run

    return run
