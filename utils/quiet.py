"""Messages left out: warnings, log lines and progress bars of packages that we call. Not for what is told:
utils/log.py."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet(enabled: bool = True) -> Iterator[None]:
    """Leaves out warnings, log lines below errors and what Python prints, in the block where `enabled`; exceptions
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
