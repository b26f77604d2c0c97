"""Leaves out what packages that we call say in Python: warnings, log lines, printed lines. Not for our own lines
(utils/log.py), nor for what libraries in C++ write (utils/silence.py)."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet(enabled: bool = True) -> Iterator[None]:
    """Where `enabled`: leaves out warnings, log lines below errors and what Python prints in the block. Exceptions
    pass."""
    if not enabled:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
