"""The one exception for input that cannot be used, and how the scripts show it. Not for our own bugs: those keep their
traceback."""

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NO_MEMORY = (  # torch on GPUs; on CPUs (Linux, macOS; Windows); OpenCV; a process that cannot be started
    "out of memory", "can't allocate memory", "not enough memory", "Insufficient memory", "Cannot allocate memory",
)  # fmt: skip
# What a terminal would obey (utils/log.py says the rest): messages quote file names and class names of strangers.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(ValueError):
    """What the user gave cannot be used. The message tells what was expected, what was got and where it stands."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Ends a script with one line and exit code 1 on what is no bug: an InputError, an error of the operating system
    (no space, no permission), memory that ran out, a loader process that was killed. Where a signal ends it, the exit
    code is 128 + the signal's number (Ctrl+C: 130). Anything else is a bug and passes with its traceback."""
    threading.excepthook = _tell_of_thread
    try:
        yield
    except (InputError, OSError) as error:
        _end(_from_worker(str(error)))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            _end(f"out of memory: try a smaller --imgsz, --batch-size or model ({type(error).__name__}: {error})")
        if is_of_dead_worker(error):
            _end(f"a loader process was ended from outside, most likely for want of memory: try --workers 0 ({error})")
        raise
    except KeyboardInterrupt as interruption:
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + getattr(interruption, "signum", signal.SIGINT))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, numpy, OpenCV or Python asked for memory that the system or the GPU did not give."""
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in NO_MEMORY)


def is_of_dead_worker(error: BaseException) -> bool:
    """Whether torch reports that one of its loader's processes was killed."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def _end(message: str) -> None:
    """Ends the script with the message on one line."""
    shown = HIDDEN.sub(lambda found: ascii(found[0])[1:-1], message.replace("\r", "\n"))
    print("Error:", *(line.strip() for line in shown.splitlines()), file=sys.stderr)  # those of YAML have several lines
    sys.exit(1)


def _tell_of_thread(failure: threading.ExceptHookArgs) -> None:
    """One sentence for a library's thread, such as TensorBoard's writer, that the system refused a file; for other
    failures of threads the usual traceback."""
    if isinstance(failure.exc_value, OSError):
        name = failure.thread.name if failure.thread else "a thread"
        print(f"Warning: {name} ended: {failure.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(failure)


def _from_worker(message: str) -> str:
    """Where torch passes on an InputError from a loader's process with its traceback: the error's own sentence. Other
    messages stay as they are."""
    marker = f"{InputError.__module__}.{InputError.__name__}: "
    return message.rpartition(marker)[2] if "Original Traceback" in message else message
