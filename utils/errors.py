"""The one exception for input that cannot be used, and how the scripts show it. Not for our own bugs: those keep their
traceback."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What the user gave cannot be used. The message tells what was expected, what was got and where it stands."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Ends a script with one message on one line and exit code 1 on an InputError or an operating-system error (no
    space, no permission), and with 128 + the signal's number (Ctrl+C: 130) where a signal ended it. Anything else is a
    bug and passes through with its traceback."""
    try:
        yield
    except (InputError, OSError) as error:
        print("Error:", *(line.strip() for line in str(error).splitlines()), file=sys.stderr)  # YAML's have several
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + getattr(interruption, "signum", signal.SIGINT))
