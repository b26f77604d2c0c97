"""Other people's messages left out: warnings and log lines of packages that we call. Not for our own: utils/log.py."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(enabled: bool = True) -> Iterator[None]:
    """Leaves out warnings, and log lines below errors, in the block where `enabled`; exceptions pass."""
    if not enabled:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
