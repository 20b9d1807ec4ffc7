"""Text of others, such as file names, rows and answers, made harmless for a terminal.

A terminal does what control characters say: it rewrites lines, changes its title, answers as if somebody had typed.
Everything that commands print and log passes `harmless`; JSON is escaped by its own rules.
"""

from __future__ import annotations

import logging
import re

_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters but tab and line feed, marks that turn the direction of writing, and halves of characters."""


def harmless(text: str) -> str:
    r"""Text with ``\x1b`` for an escape and its like; bytes of a file name that are no UTF-8 appear as ``\xe9``."""
    return _HARMFUL.sub(lambda found: _escape(ord(found[0])), text)


def in_one_line(text: str) -> str:
    """Harmless text whose line feeds are shown, too."""
    return harmless(text).replace("\n", "\\n")


class HarmlessFormatter(logging.Formatter):
    """A formatter of log records whose text is `harmless`."""

    def format(self, record: logging.LogRecord) -> str:
        """As every formatter."""
        return harmless(super().format(record))


def log_harmlessly() -> None:
    """Has the handler that logs where nobody has set up logging write harmless text."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(HarmlessFormatter())


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
