import numpy as np
import pytest

from utils.figures import LONGEST_NAME, chart_names, even_selection, new_figure, save_figure


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", ""),
        ("$2 coin", r"\$2 coin"),
        ("a" * LONGEST_NAME, "a" * LONGEST_NAME),
        ("from the beginning of a long name to its end", "from the beginning of…to its end"),
        ("数" * 40, "数" * 21 + "…" + "数" * 10),
    ],
)
def test_long_names_keep_their_beginning_and_their_end(name, shown, monkeypatch):
    monkeypatch.setattr("utils.figures.drawable_names", dict)  # whatever fonts there are here
    assert chart_names({}) == {}
    assert chart_names({3: name}) == {3: shown}


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 3, []), (1, 3, [0]), (3, 3, [0, 1, 2]), (4, 3, [0, 2]), (7, 3, [0, 3, 6]), (100, 1, [0])],
)
def test_an_even_selection(count, most, expected):
    assert even_selection(np.arange(count), most).tolist() == expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "svg"])
def test_the_suffix_is_the_format(suffix, tmp_path):
    begins = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "svg": b"<?xml"}
    figure, _ = new_figure(1, 1, size_inches=(1, 1))
    save_figure(figure, tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes().startswith(begins[suffix])
