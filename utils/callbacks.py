"""Hooks: named moments of a training or validation at which functions of others, the listeners, are called. When each
is called stands in docs/loggers.md. Not for listeners: loggers are in utils/loggers.py.

    callbacks = Callbacks()
    callbacks.register("on_fit_epoch_end", lambda epoch, values, **_: print(epoch, values["metrics/mAP_0.5"]))
    train.run(data="my.yaml", callbacks=callbacks)
"""

from collections.abc import Callable
from typing import Any

from utils.errors import InputError
from utils.flags import did_you_mean

# Hook -> the keyword arguments that its listeners get, in the order in which a training calls them.
HOOKS: dict[str, tuple[str, ...]] = {
    "on_params_update": ("params",),
    "on_pretrain_routine_start": (),
    "on_pretrain_routine_end": ("labels",),
    "on_train_start": (),
    "on_train_epoch_start": ("epoch",),
    "on_train_batch_start": (),
    "optimizer_step": (),
    "on_before_zero_grad": (),
    "on_train_batch_end": ("step", "batch", "model"),
    "on_train_epoch_end": ("epoch",),
    "on_val_start": (),
    "on_val_batch_start": (),
    "on_val_image_end": ("result",),
    "on_val_batch_end": (),
    "on_val_end": ("metrics",),
    "on_fit_epoch_end": ("epoch", "values"),
    "on_model_save": ("epoch", "file", "best"),
    "on_train_end": ("save_dir", "metrics"),
    "teardown": (),
}


class Callbacks:
    """Listeners by hook. They are called in the order in which they were registered, those of `base` first. A listener
    that wants the training to end sets `stop_training`; the trainer looks at it after each epoch.

    Differs from v6.1: listeners get keyword arguments by name, the same ones each time.
    """

    def __init__(self, base: "Callbacks | None" = None) -> None:
        self._base = base
        self._stop = False
        self._listeners: dict[str, list[Callable[..., Any]]] = {hook: [] for hook in HOOKS}

    def for_one_run(self) -> "Callbacks":
        """A copy to which one training adds its own listeners, which the next training must not call. It calls those of
        this object, too, also later ones. A stop that was asked for in an earlier training is over."""
        self.stop_training = False
        return Callbacks(base=self)

    @property
    def stop_training(self) -> bool:
        """Whether a listener, here or in the base, wants the training to end after this epoch."""
        return self._stop or (self._base is not None and self._base.stop_training)

    @stop_training.setter
    def stop_training(self, stop: bool) -> None:
        self._stop = stop

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
        listeners = tuple(self._of(hook))
        if self._base is not None:
            self._base.run(hook, *args, **kwargs)
        for listener in listeners:
            listener(*args, **kwargs)

    def _of(self, hook: str) -> list[Callable[..., Any]]:
        if hook not in self._listeners:
            meant = did_you_mean([hook], {known: known for known in HOOKS})
            raise InputError(f"callbacks: unknown hook {hook!r}{meant}; known are {', '.join(HOOKS)}")
        return self._listeners[hook]
