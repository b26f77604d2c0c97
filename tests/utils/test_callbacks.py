import pytest

from utils.callbacks import HOOKS, Callbacks
from utils.errors import InputError


def test_a_hook_without_listeners_does_nothing():
    callbacks = Callbacks()
    for hook in HOOKS:
        callbacks.run(hook)
    assert len(set(HOOKS)) == 19
    assert not callbacks.stop_training


def test_listeners_are_called_in_order_with_what_was_passed():
    callbacks, calls = Callbacks(), []
    callbacks.register("on_train_end", lambda *args, **kwargs: calls.append(("first", args, kwargs)))
    callbacks.register("on_train_end", lambda *args, **kwargs: calls.append(("second", args, kwargs)))
    callbacks.run("on_train_end", 1, epoch=2)
    assert calls == [("first", (1,), {"epoch": 2}), ("second", (1,), {"epoch": 2})]


def test_unknown_hooks_and_listeners_that_cannot_be_called_are_refused():
    with pytest.raises(InputError, match="unknown hook 'on_lunch'"):
        Callbacks().run("on_lunch")
    with pytest.raises(InputError, match="unknown hook 'on_lunch'"):
        Callbacks().register("on_lunch", print)
    with pytest.raises(InputError, match=r"unknown hook 'on_train_ended' \(did you mean on_train_end\?\); known are"):
        Callbacks().register("on_train_ended", print)
    with pytest.raises(InputError, match="a function was expected"):
        Callbacks().register("on_train_end", "print")


def test_an_object_registers_by_its_method_names():
    class Logger:
        heard = ()

        def on_train_start(self):
            self.heard += ("start",)

        def teardown(self):
            self.heard += ("teardown",)

        def unrelated(self):
            raise AssertionError

    callbacks, logger = Callbacks(), Logger()
    callbacks.register_all(logger)
    for hook in HOOKS:
        callbacks.run(hook)
    assert logger.heard == ("start", "teardown")


def test_a_misspelt_hook_method_is_found():
    class Logger:
        def on_train_ends(self):
            raise AssertionError

    with pytest.raises(InputError, match="on_train_ends"):
        Callbacks().register_all(Logger())


def test_what_a_listener_raises_passes_through():
    callbacks = Callbacks()
    callbacks.register("teardown", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        callbacks.run("teardown")


def test_one_runs_own_listeners_and_stop_are_not_the_nexts():
    callbacks, heard = Callbacks(), []
    callbacks.register("teardown", lambda: heard.append("user"))
    first = callbacks.for_one_run()
    first.register("teardown", lambda: heard.append("first run"))
    first.run("teardown")
    callbacks.stop_training = True
    assert first.stop_training
    second = callbacks.for_one_run()
    second.run("teardown")
    assert heard == ["user", "first run", "user"]
    assert not second.stop_training
    second.stop_training = True
    assert second.stop_training
    assert not callbacks.stop_training
