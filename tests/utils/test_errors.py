"""What a script says of failures that nobody catches."""

import threading

import pytest

from utils.errors import InputError, readable_errors


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


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, None, ""),
        (InputError("--imgsz: 0 is too small"), 1, "Error: --imgsz: 0 is too small\n"),
        (InputError("a.yaml:\n  line 2"), 1, "Error: a.yaml: line 2\n"),
        (InputError("class \x1b[31mred"), 1, "Error: class \\x1b[31mred\n"),
        (PermissionError(13, "Permission denied", "runs"), 1, "Error: [Errno 13] Permission denied: 'runs'\n"),
        (MemoryError(), 1, "Error: out of memory: try a smaller --imgsz, "),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            1,
            "Error: out of memory: try a smaller --imgsz, ",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 1, "try --workers 0"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_what_is_no_bug_ends_a_script_in_one_line(hooks, capsys, error, code, told):
    def script() -> None:
        with readable_errors():
            if error is not None:
                raise error

    if code is None:
        script()
    else:
        with pytest.raises(SystemExit) as ended:
            script()
        assert ended.value.code == code
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == (code is not None)


@pytest.mark.parametrize("bug", [RuntimeError("shapes cannot be multiplied"), KeyError("a")])
def test_a_bug_keeps_its_traceback(hooks, bug):
    with pytest.raises(type(bug)), readable_errors():
        raise bug
