"""Weights that others publish: where they are, how their images are prepared, and fetching them.

The table `published.json` is written by tests/parity/published.py from timm and torchvision, and
from what it lists of the Hub itself.
"""

import functools
import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jaxvision.errors import UserError, unknown
from jaxvision.interop.weight_files import FILES, file_in, shards
from jaxvision.progress import tracked

_HUB = re.compile(r"^(?:hf:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?$")
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Published:
    """One file of trained weights.

    Attributes:
      hub: repository on the Hugging Face Hub, or "".
      url: address of the file, or "".
      size: side of the square images that it was trained for; 0 of networks that take images as
        they are.
      crop: the part of the shorter side that the central crop keeps; 0 if nothing is cropped.
      longest: for detectors, the longer side at most; `size` is the shorter one, if that fits.
      letterbox: for detectors, whether images are fitted into the square and padded.
      square: whether images are stretched to squares, for networks that take no others well.
      interpolation: of the resizing.
      antialias: whether images are smoothed where they become smaller.
      mean: per channel, of images in 0..1.
      std: per channel.
      classes: how many it tells apart.
      background: how many classes before the first of ImageNet's (1 in some files of TensorFlow's).
      labels: whose names the classes have, see `class_names`; "" if that is not known.
      tokenizer: of networks whose classes are tokens, the file of the repository that says what
        they are; see `hub_file`.
      palette: of networks that say colours, the file of the repository that has them.
    """

    hub: str = ""
    url: str = ""
    size: int = 224
    crop: float = 0.875
    longest: int = 0
    letterbox: bool = False
    square: bool = False
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    classes: int = 1000
    background: int = 0
    labels: str = ""
    tokenizer: str = ""
    palette: str = ""


@functools.cache
def _table() -> dict[str, dict[str, Published]]:
    text = resources.files("jaxvision.interop").joinpath("published.json").read_text()
    return {
        name: {
            tag: Published(**entry | {key: tuple(entry[key]) for key in ("mean", "std")})
            for tag, entry in entries.items()
        }
        for name, entries in json.loads(text).items()
    }


def published(model: str) -> Mapping[str, Published]:
    """The published files of a network by tag, the default first; empty where there are none."""
    return _table().get(model, {})


@functools.cache
def class_names(labels: str) -> tuple[str, ...]:
    """The names of a data set's classes in order.

    Args:
      labels: "imagenet", the 1000 of ILSVRC 2012, or "voc", Pascal's 20 after the background, both
        as torchvision has them; "ade20k", the 150 of the MIT Scene Parsing Benchmark, as
        mmsegmentation has them; "coco", the 90 things that the ids of COCO (Lin et al. 2014,
        https://arxiv.org/abs/1405.0312) stand for, ten of which its boxes do not use; "coco_ids",
        the same after the background, 0.
    """
    if labels == "coco_ids":
        return ("background", *class_names("coco"))
    text = resources.files("jaxvision.interop").joinpath(f"{labels}_classes.txt").read_text()
    return tuple(text.splitlines())


def resolve(weights: str, model: str = "") -> tuple[Path, Published | None]:
    """The file that `weights` names, fetched if need be, and what is known of it.

    An index of shards stands for them all.

    Args:
      weights: a file; a folder like a repository of the Hub; "default" or a tag of the model
        (`tv_in1k`, `IMAGENET1K_V1`), which may come with the model's name as in timm
        (`resnet50.tv_in1k`) or torchvision (`ResNet50_Weights.IMAGENET1K_V1`); `owner/repository`
        on the Hugging Face Hub, with `@revision` if wanted and `hf:` before it where a folder is
        called so too; or the https address of a file, with `#sha256=...` if wanted.
      model: name of the network, for tags.

    Raises:
      UserError: nothing is called so; or it cannot be fetched; or its checksum is wrong.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path, None
    entries = published(model)
    tag = weights.rpartition(".")[2]
    if weights == "default" and entries:
        tag = next(iter(entries))
    if tag in entries and "/" not in weights:
        entry = entries[tag]
        return (hub_file(entry.hub) if entry.hub else url_file(entry.url)), entry
    if weights.startswith("https://"):
        return url_file(weights), None
    if path.is_dir():
        return file_in(path), None
    by_repository = {entry.hub: entry for entry in entries.values() if entry.hub}
    if (match := _HUB.match(weights)) and path.suffix not in (".safetensors", ".pth", ".pt", ".th"):
        return hub_file(match[1], match[2]), by_repository.get(match[1])
    if path.suffix:
        raise UserError(f"No weights file {weights}, and no folder.")
    if not entries:
        raise UserError(f"No published weights of {model!r} are known; give a file, or a Hub name.")
    raise unknown(f"weights of {model}", weights, ["default", *entries])


def hub_file(repository: str, revision: str | None = None, names: Sequence[str] = FILES) -> Path:
    """A file of a repository in the local Hub cache, downloaded if it is not there.

    It is the first of the names that the repository has; by default its weights.

    `HF_HUB_OFFLINE=1` never asks the network; `HF_HOME` moves the cache. Files that the Hub stores
    by their SHA-256 are checked against it.

    Raises:
      UserError: no such repository, revision or file, no network, or the file is damaged.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repository}@{revision}" if revision else repository
    reason, offline = "", not _hub_answers()

    def fetch(name: str) -> Path:
        path = Path(hf_hub_download(repository, name, revision=revision, local_files_only=offline))
        blob = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", blob):
            check_sha256(path, blob)
        return path

    for name in names:
        try:
            path = fetch(name)
            for shard in shards(path) if name.endswith(".index.json") else ():
                fetch(shard)
        except LocalEntryNotFoundError:
            reason = "not in the local cache, and the Hub cannot be reached (or HF_HUB_OFFLINE=1)"
            continue
        except EntryNotFoundError:
            reason = f"it has none of {', '.join(names)}"
            continue
        except RevisionNotFoundError:
            raise UserError(f"{repository} on the Hub has no revision {revision!r}.") from None
        except RepositoryNotFoundError:
            raise UserError(f"No repository {repository!r} on the Hub.") from None
        except (HfHubHTTPError, OSError) as error:
            raise UserError(f"Cannot fetch {at} from the Hub: {error}") from error
        return path
    what = "weights" if tuple(names) == FILES else " or ".join(names)
    raise UserError(f"Cannot fetch {what} of {at} from the Hub: {reason}.")


def _hub_answers() -> bool:
    """Whether the Hub can be reached; its own client tries for a minute before it gives up."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def cache_folder() -> Path:
    """Where files fetched by address are kept: `$JAXVISION_CACHE` or `~/.cache/jaxvision`."""
    return Path(os.environ.get("JAXVISION_CACHE", "~/.cache/jaxvision")).expanduser() / "weights"


def url_file(address: str) -> Path:
    """A file by its address, kept in `cache_folder()`; PyTorch's own cache is looked at first.

    A checksum after `#sha256=`, or the first digits of one at the end of the name as in
    `resnet50-0676ba61.pth`, is checked.

    Raises:
      UserError: it cannot be fetched, or its checksum is wrong.
    """
    location, _, fragment = address.partition("#")
    name = location.rstrip("/").rpartition("/")[2]
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise UserError(f"{address} does not end in a file's name.")
    in_name = re.search(r"-([0-9a-f]{8,64})\.", name)
    digest = fragment.removeprefix("sha256=") or (in_name[1] if in_name else "")
    torch = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser()
    for folder in (cache_folder(), torch / "hub" / "checkpoints"):
        if (folder / name).is_file():
            check_sha256(folder / name, digest)
            return folder / name
    target = cache_folder() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(location, timeout=60) as response, partial.open("wb") as file:
            length = response.headers.get("Content-Length", "")
            blocks = -(-int(length) // _BLOCK) if length.isdigit() else None
            received = iter(lambda: response.read(_BLOCK), b"")
            for block in tracked(received, f"Fetching {name}", blocks):
                file.write(block)
        check_sha256(partial, digest)
        partial.replace(target)
    except (urllib.error.URLError, TimeoutError) as error:
        raise UserError(
            f"Cannot fetch {location}: {getattr(error, 'reason', error)}. Fetch it elsewhere, and "
            f"put it into {target.parent} or give its path."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def check_sha256(path: Path, digest: str) -> None:
    """Refuses a file whose SHA-256 does not begin with `digest` (nothing is checked if empty).

    Raises:
      UserError: it does not.
    """
    if not digest:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digest.lower()):
        raise UserError(
            f"{path} is damaged: its SHA-256 is {found[:16]}..., not {digest[:16]}...; delete it "
            "and try again."
        )
