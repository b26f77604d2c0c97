"""The project's logger and the few terminal styles it uses. Not for metrics: those go to utils/loggers.py."""

import logging
import sys

STYLES = {"bold": "\033[1m", "red": "\033[31m", "green": "\033[32m", "yellow": "\033[33m", "blue": "\033[34m"}
RESET = "\033[0m"


def styled(text: str, *styles: str) -> str:
    """Text in the named STYLES where the output is a terminal, unchanged elsewhere (files, pipes, CI)."""
    if not sys.stderr.isatty():
        return text
    return "".join(STYLES[style] for style in styles) + text + RESET


class _CurrentStderr(logging.StreamHandler):
    """Writes to sys.stderr as it is at the time of the message, so that redirection after import works."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # noqa: ANN201  (a text stream)
        return sys.stderr


def _make_logger() -> logging.Logger:
    logger = logging.getLogger("yolov5")
    if not logger.handlers:
        handler = _CurrentStderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


LOGGER = _make_logger()
