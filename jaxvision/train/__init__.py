"""Training: `run(config, workdir)` is the whole job."""

from jaxvision.train.loop import run

__all__ = ["run"]
