"""What a file is that stands where weights are expected."""

from pathlib import Path

_ANSWER = "page, perhaps a server's answer in place of the file; fetch it again"
_STARTS = {
    b"version https://git-lfs": "a pointer of git-LFS, not the file itself; fetch that by "
    "`git lfs pull`",
    b"<!doctype html": f"an HTML {_ANSWER}",
    b"<html": f"an HTML {_ANSWER}",
    b"<?xml": f"an XML {_ANSWER}",
    b"\x89hdf\r\n": "an HDF5 file, perhaps of Keras",
    b"\x93numpy": "an array of NumPy",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
}


def foreign(path: Path) -> str:
    """What the file is, if it is of a kind that holds no weights for us; else "".

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "empty"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for start, kind in _STARTS.items() if text.startswith(start)), "")
