import pytest

from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.surviving import Guarded, survives


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(), "RuntimeError: no reason given"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ConnectionError("server away\n<html>a whole page</html>"), "ConnectionError: server away)"),
    ],
)
def test_a_failure_is_told_and_passes_nothing_on(error, told, capfd):
    assert survives("nothing", lambda: None)
    assert not survives("The logger", lambda: fail(error))
    log = capfd.readouterr().err
    assert log.count("\n") == 1
    assert told in log


def test_ctrl_c_passes():
    with pytest.raises(KeyboardInterrupt):
        survives("The logger", lambda: fail(KeyboardInterrupt()))


class Logger:
    """Fails at the second epoch."""

    def __init__(self):
        self.heard = []

    def on_fit_epoch_end(self, epoch, **_):
        self.heard.append(epoch)
        if epoch == 1:
            raise ConnectionError("server away")

    def on_train_end(self, **_):
        self.heard.append("end")


def test_a_listener_is_dropped_at_its_first_failure_and_told_once(capfd):
    callbacks, failing, sound = Callbacks(), Logger(), []
    callbacks.register_all(Guarded("The logger", lambda: failing))
    callbacks.register("on_fit_epoch_end", lambda epoch, **_: sound.append(epoch))
    for epoch in range(4):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values={})
    callbacks.run("on_train_end", save_dir=None, metrics=None)
    assert failing.heard == [0, 1]
    assert sound == [0, 1, 2, 3]
    assert capfd.readouterr().err.count("server away") == 1


def test_a_listener_that_cannot_be_made_is_left_out(capfd):
    callbacks = Callbacks()
    callbacks.register_all(Guarded("The logger", lambda: fail(OSError("no such host"))))
    callbacks.run("on_train_end", save_dir=None, metrics=None)
    assert "The logger failed" in capfd.readouterr().err


def test_a_misspelt_hook_is_still_found():
    class Misspelt:
        def on_train_ends(self):
            raise AssertionError

    with pytest.raises(InputError, match="on_train_ends"):
        Callbacks().register_all(Guarded("The logger", Misspelt))
