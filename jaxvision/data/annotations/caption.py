"""A sentence about an image: `caption`, uint8 [b, limit], UTF-8 that zeros follow."""

from typing import Any

import numpy as np

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.errors import UserError


class Caption(Kind):
    """Text on the host, bytes in a batch."""

    record_keys = batch_keys = ("caption",)

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        text = record["caption"]
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"The caption of {name} is not UTF-8: {error}.") from error
        if not isinstance(text, str):
            raise UserError(f"The caption of {name} is {text!r}; expected text.")
        return {"caption": text}

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        data = record["caption"].encode()
        if len(data) > settings.max_caption:
            raise UserError(
                f"The caption of {name} has {len(data)} bytes; "
                f"raise data.max_caption, which is {settings.max_caption}."
            )
        row = np.zeros(settings.max_caption, np.uint8)
        row[: len(data)] = np.frombuffer(data, np.uint8)
        return {"caption": row}


def text_of(row: np.ndarray) -> str:
    """The text of a row of a batch."""
    return row.tobytes().rstrip(b"\0").decode()
