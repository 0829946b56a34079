"""Text in pictures: a font that has its characters, and lines that fit."""

import functools
import logging
import unicodedata
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
logger = logging.getLogger(__name__)
_CONTROLS = ("Cc", "Zl", "Zp")
_UNUSUAL = ("bold", "italic", "oblique", "mono", "light", "thin", "black", "condensed", "serif")


def printable(text: str) -> str:
    """The text with spaces for controls and ends of paragraphs, of which layout fails."""
    return "".join(" " if unicodedata.category(c) in _CONTROLS else c for c in text)


@functools.lru_cache(maxsize=1024)
def font_for(text: str, size: int) -> Font:
    """Pillow's own font where the text is ASCII; else one of this machine that can write it.

    Matplotlib brings DejaVu Sans: Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian. For
    others, such as Chinese or Devanagari, the system's fonts are searched. Where none has all
    characters, a warning names what is missing.

    Args:
      text: to be drawn.
      size: in pixels.
    """
    wanted = {ord(c) for c in text if unicodedata.category(c)[0] != "C"}
    if not wanted or max(wanted) < 128:
        return ImageFont.load_default(size)
    best, lacking = _fonts()[0], wanted
    for path in _fonts():
        missing = wanted - _characters(path)
        if len(missing) < len(lacking):
            best, lacking = path, missing
        if not missing:
            break
    if lacking:
        shown = " ".join(sorted(map(chr, lacking))[:8])
        logger.warning(
            "No font on this machine has %s; install one that does, such as Noto Sans.", shown
        )
    return ImageFont.truetype(best, size)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Font files, plain ones first."""
    import matplotlib
    from matplotlib import font_manager

    own = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    plain = lambda path: (any(word in path.lower() for word in _UNUSUAL), path)  # noqa: E731
    return (str(own), *sorted(font_manager.findSystemFonts(), key=plain))


@functools.cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a file that is no font that FreeType reads
        return frozenset()


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words where that can be."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines
