"""Ctrl+C, the TERM signal of a job scheduler and the HUP signal of a terminal that closes, as a wish that a loop looks
at between two steps."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

HANG_UP = getattr(signal, "SIGHUP", None)  # which Windows lacks
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANG_UP)))

Handler = Callable[[int, FrameType | None], Any] | int | None


class StoppedBySignal(KeyboardInterrupt):
    """A run that was asked to end has ended, with its work saved. `signum` is the signal that asked."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopSignals:
    """While its `with` block runs, the first SIGINT, SIGTERM or SIGHUP sets `received`; a second one has its usual
    effect. A SIGHUP that is ignored already (nohup) stays so. Python lets only the main thread handle signals: in
    others nothing is caught, and `received` stays None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._usual: dict[int, Handler] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            caught = [s for s in SIGNALS if s != HANG_UP or signal.getsignal(s) is not signal.SIG_IGN]
            self._usual = {signum: signal.signal(signum, self._note) for signum in caught}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, signum: int, _: FrameType | None) -> None:
        self._restore()
        if signum == HANG_UP:
            leave_lost_terminal()
        self.received = signum  # no log line: the signal may have come in the middle of another

    def _restore(self) -> None:
        for signum, usual in self._usual.items():
            signal.signal(signum, usual or signal.SIG_DFL)  # None: set by code that is not Python's
        self._usual = {}


def leave_lost_terminal() -> None:
    """Sends what is written to a terminal that is gone to nowhere: writing to it is an error, which would end the run
    before its work is saved."""
    for handle in (1, 2):
        try:
            os.write(handle, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, handle)
            os.close(nowhere)
