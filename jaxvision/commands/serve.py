"""Serve a page on which a trained network says what it makes of photographs.

    jaxvision serve runs/digits
    jaxvision serve --model resnet50 --pretrained --port 8080

docs/serving.md has what the page shows, and what others can reach of it.
"""

import argparse
import re

from jaxvision.commands import source
from jaxvision.errors import UserError

_PIXELS = 2**26  # of a photograph; data.max_image_pixels raises it
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="RUN", help="folder of a run")
    source.add_arguments(parser)
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0: any free one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default 127.0.0.1, for this machine alone)",
    )
    parser.add_argument("--limit", default="20MB", help="of an upload (default 20MB)")
    parser.add_argument(
        "--as-is",
        action="store_true",
        help="fit no photograph into the size of the training; each size is compiled",
    )
    parser.add_argument("--no-open", action="store_true", help="open no browser")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    if options.folder and options.workdir:
        raise UserError("The folder of a run is given twice; leave --workdir out.")
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port={options.port} is a number from 0 to 65535.")
    limit = bytes_of(options.limit)
    try:
        from jaxvision.serve import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError("serve needs: pip install 'jaxvision[serve]'") from error

    with server.listen(options.host, options.port) as listener:
        options.workdir = options.folder or options.workdir
        overrides = {"data.max_image_pixels": str(_PIXELS), **overrides}
        chosen = source.open_run(options, overrides)
        browse = not options.no_open
        server.serve(chosen, listener, options.host, limit, browse, options.as_is)


def bytes_of(text: str) -> int:
    """A size with its unit, as in `20MB`, in bytes.

    Raises:
      UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]?B?)", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if not size:
        raise UserError(f"--limit is a size such as 500kB, 20MB or 1GB, not {text!r}.")
    return size
