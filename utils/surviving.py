"""The one place where a failure is not passed on: a logger that fails must not end a training, nor one output of a
detection the others. Not for the steps of a run, nor for what a user's callbacks do."""

from collections.abc import Callable
from typing import Any

from utils.errors import is_of_dead_worker
from utils.log import LOGGER

REASON_LENGTH = 300  # characters; a server's answer can be a whole page


def survives(what: str, action: Callable[[], object]) -> bool:
    """Calls `action` and returns whether it succeeded. Where it raises, the log says that `what` failed, and why.
    Ctrl+C passes."""
    try:
        action()
    except Exception as error:
        if is_of_dead_worker(error):  # torch raises it wherever the main process happens to be: no fault of the action
            raise
        lines = str(error).strip().splitlines() or ["no reason given"]
        reason = f"{type(error).__name__}: {lines[0][:REASON_LENGTH]}"
        LOGGER.warning(f"{what} failed and is left out from here on, the rest goes on ({reason})")
        return False
    return True


class Guarded:
    """A listener, for Callbacks.register_all, around another one. At the first failure of that one the log says so, and
    it is not called any more; the training goes on. `make` makes the other one, and may fail, too."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self._name = name
        self._listener: object = None
        self._in_use = survives(name, lambda: self._connect(make))

    def _connect(self, make: Callable[[], object]) -> None:
        self._listener = make()

    def __dir__(self) -> list[str]:
        return dir(self._listener)

    def __getattr__(self, hook: str) -> Callable[..., None]:
        method = getattr(self._listener, hook)

        def guarded(*args: Any, **kwargs: Any) -> None:
            if self._in_use:
                self._in_use = survives(self._name, lambda: method(*args, **kwargs))

        return guarded
