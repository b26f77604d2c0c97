"""Ctrl+C and the TERM signal of a job scheduler, as a wish that a loop looks at between two steps."""

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(KeyboardInterrupt):
    """A run that was asked to end has ended, with its work saved. `signum` is the signal that asked."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopSignals:
    """While its `with` block runs, the first SIGINT or SIGTERM sets `received`; a second one has its usual effect.
    Python lets only the main thread handle signals: in others nothing is caught, and `received` stays None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._usual: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._usual = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, signum: int, _: FrameType | None) -> None:
        self._restore()
        self.received = signum  # no log line: the signal may have come in the middle of another

    def _restore(self) -> None:
        for signum, usual in self._usual.items():
            signal.signal(signum, usual or signal.SIG_DFL)  # None: set by code that is not Python's
        self._usual = {}
