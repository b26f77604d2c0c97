"""Leaves out what packages that we call write past Python, as libraries in C++ and child processes do. Not for
warnings and log lines: utils/quiet.py."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def silence(enabled: bool = True) -> Iterator[None]:
    """Where `enabled`: leaves out all that is written to standard output and error in the block, by whomever.
    Exceptions pass. It acts on the whole process: not for code that runs beside threads that have something to tell."""
    if not enabled:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    try:
        with tempfile.TemporaryFile("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
            for descriptor, _ in kept:
                os.dup2(sink.fileno(), descriptor)
            yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)
