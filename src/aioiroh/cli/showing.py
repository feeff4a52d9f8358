"""A ticket for other ways than typing: as a QR code, and through the terminal into the clipboard."""

from __future__ import annotations

import base64
import importlib.util

__all__ = ["can_show_codes", "clipboard_sequence", "qr_code"]

BORDER = 2
"""Light modules around a code."""
BLOCKS = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""Two modules, one above the other, for a terminal that writes light on dark."""


def can_show_codes() -> bool:
    """Whether what makes QR codes is installed."""
    return importlib.util.find_spec("segno") is not None


def qr_code(text: str) -> str:
    """Lines that show `text` as a QR code."""
    import segno

    code = segno.make(text, micro=False, error="l", boost_error=False)
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return "\n".join(
        "".join(BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )


def clipboard_sequence(text: str) -> str:
    """What a terminal takes as a request to copy `text` (OSC 52)."""
    return f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a"
