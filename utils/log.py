"""The project's logger, and how its lines look. Not for metrics: those go to utils/loggers.py."""

import logging
import os
import sys
from typing import TextIO

COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m"}  # yellow, red
RESET = "\033[0m"


class _ByLevel(logging.Formatter):
    """Information as it stands; `WARNING: ` and `ERROR: ` before the rest, in colour where the output is a terminal
    (not with the environment variable NO_COLOR, nor in files and pipes)."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
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
