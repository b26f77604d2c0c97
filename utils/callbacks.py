"""Named moments of a training or validation that other code can hook into. What happens there is the listeners' affair:
loggers live in utils/loggers.py."""

from collections.abc import Callable
from typing import Any

from utils.errors import InputError

HOOKS = (
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_val_start",
    "on_val_batch_start",
    "on_val_image_end",
    "on_val_batch_end",
    "on_val_end",
    "on_fit_epoch_end",
    "on_model_save",
    "on_train_end",
    "on_params_update",
    "teardown",
)


class Callbacks:
    """Listeners by hook, called in the order they came. A listener that wants the training to end sets
    `stop_training`; the trainer looks at it after each epoch."""

    def __init__(self) -> None:
        self.stop_training = False
        self._listeners: dict[str, list[Callable[..., Any]]] = {hook: [] for hook in HOOKS}

    def register(self, hook: str, listener: Callable[..., Any]) -> None:
        """Calls `listener` at every `run(hook, ...)` from now on. Raises InputError for an unknown hook."""
        if not callable(listener):
            raise InputError(f"callbacks: a function was expected for {hook}, got {type(listener).__name__}")
        self._of(hook).append(listener)

    def register_all(self, listener: object) -> None:
        """Registers every method of `listener` that bears a hook's name. Raises InputError for a public `on_...` method
        that is no hook: it would never be called."""
        for name in dir(listener):
            if name in HOOKS or name.startswith("on_"):
                self.register(name, getattr(listener, name))

    def run(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Calls the hook's listeners. Raises InputError for an unknown hook; what a listener raises passes through."""
        for listener in tuple(self._of(hook)):
            listener(*args, **kwargs)

    def _of(self, hook: str) -> list[Callable[..., Any]]:
        if hook not in self._listeners:
            raise InputError(f"callbacks: unknown hook {hook!r}; known are {', '.join(HOOKS)}")
        return self._listeners[hook]
