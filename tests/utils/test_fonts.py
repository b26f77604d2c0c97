"""Which font draws which text. Computers differ in their fonts: where the one needed is missing, a test is skipped."""

import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont, features

from utils import fonts
from utils.figures import chart_names, new_figure, save_figure
from utils.fonts import chart_family, drawable_names, face_of, font_for

PRIVATE = "\ue000"  # a character for private use: no font has a shape for it
UNICORN = "\U0001f984"
ALWAYS = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture
def fonts_here(monkeypatch):
    """fonts_here(files): the fonts of this computer, beside the one that comes with matplotlib."""

    def found(files):
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(file) for file in files])
        forget()

    forget()
    yield found
    monkeypatch.undo()
    forget()


def forget():
    for cached in (fonts.font_files, fonts._face_with, fonts._codes_in, fonts._warn_once, fonts.chart_family):
        cached.cache_clear()


def needed(text):
    """The face with the letters of the text; skips where this computer has none."""
    return face_of(text) or pytest.skip(f"needs a font with the letters {text}, such as Debian's fonts-noto-cjk")


@pytest.mark.parametrize("text", ["", "cat 0.87"])
def test_ascii_is_drawn_by_pillows_own_font(text, fonts_here):
    assert font_for(text, 14).getname() == ImageFont.load_default(14).getname()
    assert drawable_names({0: text}) == {0: text}
    assert chart_family(text) is None


@pytest.mark.parametrize("text", ["café", "кошка", "γάτα", "no\u200bspace"])
def test_letters_of_europe_need_no_font_of_the_system(text, fonts_here):
    fonts_here([])
    assert face_of(text) == (ALWAYS, 0)
    assert Path(font_for(text, 14).path) == ALWAYS
    assert drawable_names({3: text}) == {3: text}
    assert chart_family(text) is None


def test_without_a_font_the_numbers_are_drawn_and_it_is_told_once(fonts_here, capsys):
    fonts_here([])
    names = {0: "cat", 1: "猫", 2: "犬とネコ", 3: UNICORN, 4: PRIVATE}
    for _ in range(2):
        assert drawable_names(names) == {0: "cat", 1: "1", 2: "2", 3: "3", 4: "4"}
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "4 of the class names (猫)" in told
    assert drawable_names({}) == {}


def test_files_that_are_no_fonts_do_no_harm(fonts_here, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fonts_here([tmp_path / "broken.ttf", tmp_path / "missing.ttf"])
    assert face_of("猫") is None


@pytest.mark.parametrize("text", ["猫", "公共汽车", "犬とネコ", "고양이"])
def test_letters_of_asia_are_drawn_where_a_font_has_them(text):
    face = needed(text)
    font, empty = font_for(text, 20), font_for(text, 20).getmask(PRIVATE)
    assert Path(font.path) == face.file
    for letter in text:
        mask = font.getmask(letter)
        assert np.array(mask).any()
        assert (mask.size, bytes(mask)) != (empty.size, bytes(empty))
    assert drawable_names({7: text}) == {7: text}


@pytest.mark.parametrize(("text", "ending"), [("猫", " SC"), ("犬とネコ", " JP"), ("고양이", " KR")])
def test_of_a_collection_the_face_that_readers_know_is_taken(text, ending):
    face = needed(text)
    faces = (
        {ImageFont.truetype(face.file, 9, index=index).getname()[0][-3:] for index in range(3)}
        if (face.file.suffix == ".ttc")
        else set()
    )
    if ending not in faces:
        pytest.skip(
            f"needs a collection with faces for languages, such as Debian's fonts-noto-cjk, this is {face.file}"
        )
    assert font_for(text, 9).getname()[0].endswith(ending)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([], []),
        (
            ["Zapf.ttf", "NotoSansCJK-Bold.ttc", "NotoSerifCJK-Regular.ttc", "NotoSansCJK-Regular.ttc", "simhei.ttf"],
            ["NotoSansCJK-Regular.ttc", "simhei.ttf", "Zapf.ttf", "NotoSansCJK-Bold.ttc", "NotoSerifCJK-Regular.ttc"],
        ),
    ],
)
def test_readable_fonts_come_first(names, order, fonts_here):
    fonts_here([f"/fonts/{name}" for name in names])
    assert [file.name for file in fonts.font_files()] == ["DejaVuSans.ttf", *order]


def test_letters_from_the_right_need_a_layout_engine(monkeypatch, fonts_here):
    fonts_here([])
    if features.check("raqm"):
        assert face_of("قطة") == (ALWAYS, 0)
    forget()
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    assert face_of("قطة") is None
    assert face_of("кот") == (ALWAYS, 0)


def test_charts_use_the_same_font_and_nothing_warns(tmp_path):
    needed("猫")
    names = {0: "猫", 1: "person", 2: PRIVATE, 3: "$a$ $b$"}
    assert chart_names(names) == {0: "猫", 1: "person", 2: "2", 3: r"\$a\$ \$b\$"}
    assert chart_family("猫") is not None
    figure, axes = new_figure(1, 1, size_inches=(3, 3))
    axes[0, 0].plot([0, 1], label="猫")
    axes[0, 0].legend()
    axes[0, 0].set_title("猫", fontweight="bold")
    axes[0, 0].set_xticks(range(4), chart_names(names).values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's "Glyph missing from font"
        save_figure(figure, tmp_path / "chart.png")


def test_names_in_ascii_load_no_chart_library():
    code = (
        "import sys; from utils.annotator import label_tile; from utils.fonts import drawable_names\n"
        "label_tile(drawable_names({0: 'cat'})[0], 12, (0, 0, 0)); sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
