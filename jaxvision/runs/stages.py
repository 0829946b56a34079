"""A pipeline of stages, each of which is made once and kept in a folder.

A stage is two files: `<stage>.npz`, its arrays, and `<stage>.json`, its record, written last. The
record says of which configuration, of which settings and of which earlier stages it was made.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.train.writers import write_atomically


@dataclass(frozen=True)
class Record:
    """What a stage was made of, and what there is to say about it.

    Attributes:
      config: the keys of the configuration that everything depends on, by path.
      settings: the stage's own.
      inputs: fingerprints of the stages that it is made of.
      notes: anything else.
    """

    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    notes: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The same for the same configuration, settings and inputs."""
        text = json.dumps([self.config, self.settings, self.inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Stages:
    """The stages in a folder.

    Args:
      folder: where they are.
      config: the keys of the configuration that everything depends on, by path; of JSON's types.
      command: how a stage of this name is made; for messages.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], command: Callable[[str], str]):
        self.folder, self.config, self.command = folder, json.loads(json.dumps(config)), command

    def read(self, stage: str) -> Record | None:
        """The record of a stage; None if it has not been made.

        Raises:
          UserError: it was made of another configuration, or the file is damaged.
        """
        path = self.folder / f"{stage}.json"
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text())
            record = Record(*(stored[key] for key in ("config", "settings", "inputs", "notes")))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {self._anew(stage)}.") from error
        # A key that one of them lacks came with another version: its default stood, or stands.
        for key in sorted(record.config.keys() & self.config.keys()):
            before, now = record.config[key], self.config[key]
            if before != now:
                raise UserError(
                    f"{self.folder} holds stages of other data: {key} was {before!r} and is "
                    f"{now!r}. Use another --workdir, or {self._anew(stage)}."
                )
        return record

    def require(self, stage: str) -> Record:
        """The record of a stage that must have been made, of what its inputs are now.

        Raises:
          UserError: it has not.
        """
        record = self.read(stage)
        if record is None:
            raise UserError(f"{self.folder} has no {stage} yet. First: `{self.command(stage)}`.")
        for name, fingerprint in record.inputs.items():
            now = self.require(name) if self.read(name) else None
            if (now.fingerprint if now else "") != fingerprint:
                raise UserError(
                    f"The {stage} in {self.folder} were made of other {name} than are there now: "
                    f"{self._anew(stage)}."
                )
        return record

    def done(
        self, stage: str, settings: Mapping[str, Any], inputs: Sequence[str], again: bool
    ) -> Record | None:
        """The record of a stage that need not be made; None if it is to be made.

        Args:
          stage: its name.
          settings: with which it is wanted, of JSON's types.
          inputs: the stages that it is made of; see `fingerprints`.
          again: whether it is made anew, whatever is there.

        Raises:
          UserError: it was made of something else.
        """
        if again:
            return None
        record = self.read(stage)
        if record is None:
            return None
        for key, value in json.loads(json.dumps(settings)).items():
            if record.settings.get(key) != value:
                raise UserError(
                    f"The {stage} in {self.folder} were made with {key}="
                    f"{record.settings.get(key)!r}, not {value!r}: {self._anew(stage)}."
                )
        return self.require(stage)

    def fingerprints(self, inputs: Sequence[str]) -> dict[str, str]:
        """Of stages; "" of one that has not been made, which some can do without."""
        found = {name: self.read(name) for name in inputs}
        return {name: record.fingerprint if record else "" for name, record in found.items()}

    def write(
        self,
        stage: str,
        arrays: Mapping[str, Any],
        settings: Mapping[str, Any],
        inputs: Sequence[str],
        notes: Mapping[str, Any],
    ) -> Record:
        """Keeps a stage, arrays by name. One of its name is replaced, whole or not at all."""
        path = self.folder / f"{stage}.npz"
        temporary = path.with_name(path.name + ".tmp")
        record = Record(self.config, settings, self.fingerprints(inputs), notes)
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            # Until its record is written the stage does not exist.
            (self.folder / f"{stage}.json").unlink(missing_ok=True)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        text = json.dumps(record.__dict__, indent=2)
        write_atomically(self.folder / f"{stage}.json", text + "\n")
        return record

    def arrays(self, stage: str, part: str = "") -> dict[str, np.ndarray]:
        """The arrays of a stage whose names begin with `part`.

        Raises:
          UserError: the file is damaged.
        """
        path = self.folder / f"{stage}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if name.startswith(part)}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged: {self._anew(stage)}.") from error

    def _anew(self, stage: str) -> str:
        return f"make them anew by `{self.command(stage)} --again`"
