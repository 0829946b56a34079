"""Where metrics go: JSON lines, TensorBoard, Weights & Biases."""

import json
import logging
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.errors import UserError

logger = logging.getLogger(__name__)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that is either the old one or the whole new one, whatever happens."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Writers:
    """All writers of a run; only the first process writes.

    Args:
      workdir: gets `metrics.jsonl` and `tensorboard/`.
      config: groups `log` and everything that Weights & Biases should show.
      step: where the run starts; records after it are of a run that was cut off, and are dropped.
      active: False makes every call a no-op (processes other than the first).

    Raises:
      UserError: Weights & Biases is asked for but not installed.
    """

    def __init__(self, workdir: Path, config: ConfigDict, step: int, active: bool = True):
        self._file, self._board, self._wandb = None, None, None
        if not active:
            return
        if config.log.wandb:
            try:
                import wandb
            except ImportError as error:
                raise UserError("log.wandb needs: pip install 'jaxvision[wandb]'") from error
            self._wandb = wandb.init(
                project=config.log.wandb,
                dir=str(workdir),
                name=workdir.name,
                # Folders of the same name in different places are different runs.
                id=f"{zlib.crc32(str(workdir.absolute()).encode()):08x}",
                resume="allow",
                config=config.to_dict(),
            )
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = [r for r in read_metrics(path) if r["step"] <= step]
            write_atomically(path, "".join(json.dumps(r) + "\n" for r in kept))
        self._file = path.open("a")
        if config.log.tensorboard:
            from tensorboardX import SummaryWriter

            folder = workdir / "tensorboard"
            purge = {"purge_step": step + 1} if folder.exists() else {}
            self._board = SummaryWriter(str(folder), **purge)

    def scalars(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """One record: `{"step": ..., "split": ..., "loss": ..., ...}`."""
        if self._file is None:
            return
        # JSON has no NaN; null says that the metric is undefined here (a class that never occurs).
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            if self._board is not None and math.isfinite(value):
                self._board.add_scalar(f"{split}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{split}/{k}": v for k, v in metrics.items()}, step=step)

    def picture(self, step: int, split: str, name: str, picture: np.ndarray) -> None:
        """A uint8 [h, w, 3] picture for TensorBoard and Weights & Biases."""
        if self._board is not None:
            self._board.add_image(f"{split}/{name}", picture, step, dataformats="HWC")
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"{split}/{name}": wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Flushes and closes everything."""
        for writer in (self._file, self._board):
            if writer is not None:
                writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`.

    A last line that a kill cut short is left out. So are other lines that are no records, with a
    warning.
    """
    records, strange = [], []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record["step"], int) or not isinstance(record["split"], str):
                raise ValueError
            records.append(record)
        except (ValueError, TypeError, KeyError):
            strange.append(number)
    if strange and strange != [len(lines)]:
        logger.warning("%s: line %d is no record; it is left out.", path, strange[0])
    return records
