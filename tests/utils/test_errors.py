"""What a script says of failures that nobody catches."""

import threading

import pytest

from utils.errors import readable_errors


@pytest.fixture
def hooks(monkeypatch):
    """Puts back who is told of threads' failures."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.mark.parametrize(
    ("error", "told", "is_bug"),
    [
        (None, "", False),
        (FileNotFoundError(2, "No such file", "runs/exp/events"), "Warning: writer ended: ", False),
        (KeyError("a bug of ours"), "Traceback", True),
    ],
)
def test_a_librarys_thread_that_is_refused_a_file_is_told_of_in_one_sentence(hooks, capsys, error, told, is_bug):
    def work() -> None:
        if error is not None:
            raise error

    with readable_errors():
        thread = threading.Thread(target=work, name="writer")
        thread.start()
        thread.join()
    err = capsys.readouterr().err
    assert told in err
    assert ("Traceback" in err) == is_bug
    assert is_bug or len(err.splitlines()) <= 1
