"""The folder of a run: whose it is, who trains in it, and what must agree with it."""

import contextlib
import errno
import json
import logging
import os
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train.checkpoint import committed_steps, owner
from jaxvision.train.writers import write_atomically

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def checked(workdir: str | Path) -> Path:
    """The absolute path of a workdir.

    Raises:
      UserError: it is none on this machine.
    """
    name = str(workdir)
    if "://" in name or re.match(r"(gs|s3|hdfs):/", name):
        raise UserError(
            f"--workdir is a folder of this machine, not {name!r}. Mount the bucket (gcsfuse, "
            "s3fs), or copy the folder there afterwards."
        )
    if not name.strip():
        raise UserError("--workdir is empty; name a folder.")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--workdir {name!r} is not UTF-8; choose another name.") from error
    return Path(name).expanduser().absolute()


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates the workdir and keeps other trainings out of it until the process is done with it.

    The system releases the lock when the process ends, however it ends.

    Raises:
      UserError: another process trains there.
      OSError: the folder cannot be created.
    """
    if jax.process_index() != 0:
        yield
        return
    import fcntl

    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = file.read(200).strip() or "another process"
            raise UserError(
                f"{workdir} is in use by {who}. Wait until it ends, or use another --workdir."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s cannot be locked (%s); train there once at a time.", workdir, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def identity(workdir: Path) -> str:
    """What tells a run from every other, kept in `run.json`; the same on every process.

    Raises:
      UserError: the file is damaged.
      OSError: it cannot be written.
    """
    name = stored_identity(workdir)
    if jax.process_index() == 0 and not name:
        steps = reversed(committed_steps(workdir / "checkpoints"))
        owners = (owner(workdir / "checkpoints" / str(step)) for step in steps)
        name = next(filter(None, owners), "") or uuid.uuid4().hex
        write_atomically(workdir / "run.json", json.dumps({"id": name}) + "\n")
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        own = np.frombuffer(bytes.fromhex(name) if name else bytes(16), np.uint8)
        name = bytes(np.asarray(multihost_utils.broadcast_one_to_all(own))).hex()
    return name


def stored_identity(workdir: Path) -> str:
    """What `run.json` says; "" if there is none.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / "run.json"
    if not path.is_file():
        return ""
    try:
        name = json.loads(path.read_bytes())["id"]
        if len(bytes.fromhex(name)) != 16:
            raise ValueError(f"{name!r} is no identity")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return name


def stored_config(folder: Path) -> ConfigDict:
    """The configuration of the run in a folder.

    Raises:
      UserError: there is no run, or a plugin of it is missing.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"No run in {folder}: it has no config.json.")
    return configuration.from_json(path.read_bytes(), run=folder)


def stored_facts(folder: Path, config: ConfigDict) -> Facts:
    """The facts of the data that the run in a folder keeps.

    Raises:
      UserError: they are damaged.
    """
    path = folder / "facts.json"
    if path.is_file():
        return Facts.from_json(path.read_bytes())
    return Facts(class_names=tuple(config.data.classes))  # of a run older than facts


def check(workdir: Path, config: ConfigDict, facts: Facts | None = None) -> ConfigDict | None:
    """Checks that a run in the workdir, if there is one, has this configuration and these data.

    Args:
      workdir: of the run.
      config: of the run that is to go on there.
      facts: of its data, once they are known.

    Returns:
      The configuration that the run was begun with; None if there is no run.

    Raises:
      UserError: it is of another experiment, whose differing keys are listed, or of other data.
    """
    # What failed before its first checkpoint may be put right.
    if not (workdir / "config.json").exists() or not committed_steps(workdir / "checkpoints"):
        return None
    old = stored_config(workdir)
    known = stored_facts(workdir, old)
    different = configuration.differences(with_classes(old, known), with_classes(config, known))
    if different and not config.train.allow_changed_config:
        lines = [f"  {key}: {was!r} -> {now!r}" for key, (was, now) in different.items()]
        raise UserError(
            f"{workdir} holds a run with another configuration:\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or --config.train.allow_changed_config=true."
        )
    if facts is not None:
        _check_facts(workdir, known, facts)
    return old


def _check_facts(workdir: Path, old: Facts, new: Facts) -> None:
    """Refuses to go on with other data.

    Raises:
      UserError: saying what has changed.
    """
    for split, count in old.records.items():
        check_records(workdir, count, new.records.get(split, count))
    if old.class_names and old.class_names != new.class_names:
        raise UserError(
            f"The data now have the classes {', '.join(new.class_names[:10])}; when {workdir} was "
            f"begun they had {', '.join(old.class_names[:10])}. Use another workdir."
        )


def check_records(workdir: Path, before: int, now: int) -> None:
    """Refuses to go on with another number of training records.

    Raises:
      UserError: saying both numbers.
    """
    if before != now:
        raise UserError(
            f"The training split now has {now} records; when {workdir} was begun it had "
            f"{before}. Use another workdir."
        )


def extended(old: ConfigDict | None, new: ConfigDict) -> str:
    """A line on a duration that is not the one that the run was begun with; "" if it is."""
    before, now = (old or new).train.duration, new.train.duration
    if before == now:
        return ""
    return f"train.duration {before!r} -> {now!r}: the learning rate follows the new schedule"


def with_classes(config: ConfigDict, facts: Facts) -> ConfigDict:
    """The configuration with the class names that the data gave, where it names none."""
    if config.data.classes or not facts.class_names:
        return config
    config = config.copy_and_resolve_references()
    config.data.classes = tuple(facts.class_names)
    return config


def write(workdir: Path, config: ConfigDict, facts: Facts) -> None:
    """Writes `config.json` and `facts.json`, once the run is known to begin or to go on.

    Raises:
      OSError: they cannot be written.
    """
    if jax.process_index() == 0:
        write_atomically(workdir / "config.json", configuration.to_json(config) + "\n")
        write_atomically(workdir / "facts.json", facts.to_json() + "\n")
