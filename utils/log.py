"""The project's logger, and how its lines look. Not for metrics: those go to utils/loggers.py."""

import logging
import os
import re
import sys
from typing import TextIO

COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m"}  # yellow, red
RESET = "\033[0m"
LONGEST_NAME = 200  # characters of a class name that people see
# What a terminal obeys or turns round instead of showing it: control characters but tab and line feed, marks of
# direction, separators of lines, and halves of letters, which no file can hold.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with what a terminal would obey written as Python writes it: \\x1b[31m. Class names and file names come
    from strangers."""
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_name(name: str) -> str:
    """A class name as the log and pictures show it: visible, on one line, shortened to LONGEST_NAME characters."""
    shown = visible(name[: LONGEST_NAME + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 3]}..."


class _ByLevel(logging.Formatter):
    """Information as it stands; `WARNING: ` and `ERROR: ` before the rest, in colour where the output is a terminal
    (not with the environment variable NO_COLOR, nor in files and pipes)."""

    def format(self, record: logging.LogRecord) -> str:
        text = visible(super().format(record))
        if record.levelno < logging.WARNING:
            return text
        level = f"{record.levelname}:"
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            level = f"{COLOURS.get(record.levelno, '')}{level}{RESET}"
        return f"{level} {text}"


class _CurrentStderr(logging.StreamHandler[TextIO]):
    """Writes to sys.stderr as it is at the time of the message, so that redirection after import works."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # never set, as it is another one each time
        return sys.stderr


def _make_logger() -> logging.Logger:
    logger = logging.getLogger("yolov5")
    if not logger.handlers:
        handler = _CurrentStderr()
        handler.setFormatter(_ByLevel())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


LOGGER = _make_logger()
