"""What is written past Python's log, left out."""

import os
import subprocess
import sys

import pytest

from utils.silence import silence


def write_everywhere(word: str) -> None:
    print(word)
    print(word, file=sys.stderr)
    os.write(1, word.encode())
    subprocess.run([sys.executable, "-c", f"import os; os.write(2, b'{word}')"], check=True)


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_of_the_block_is_seen_where_enabled(capfd, enabled):
    write_everywhere("before")
    with silence(enabled):
        write_everywhere("inside")
    write_everywhere("after")
    out, err = capfd.readouterr()
    assert [text.count("before") for text in (out, err)] == [text.count("after") for text in (out, err)] == [2, 2]
    assert [text.count("inside") for text in (out, err)] == ([0, 0] if enabled else [2, 2])


def test_exceptions_pass_and_output_is_back(capfd):
    with pytest.raises(KeyError), silence():
        raise KeyError("x")
    write_everywhere("after")
    assert capfd.readouterr().out.count("after") == 2
