"""Which font draws a text: Pillow's own, or one of this computer that has the letters it lacks. Nothing is downloaded.
Not for placing or colouring text: utils/annotator.py, utils/figures.py."""

import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ImageFont, features

from utils.log import LOGGER, visible_name

# Parts of file names, lower case, of fonts that people read well on screens. Where none of them is there or has the
# letters, the first that has them is taken.
PREFERRED = (
    *("notosanscjk-regular", "notosanssc-regular", "sourcehansans", "wqy-microhei", "wqy-zenhei", "droidsansfallback"),
    *("msyh.", "simhei", "malgun.", "yugothm", "segoeui.", "arial.", "nirmala."),  # Windows
    *("pingfang", "hiragino sans gb", "applesdgothicneo", "arial unicode"),  # macOS
    *("notosans-regular", "sans-regular"),
)
LESS_READABLE = ("bold", "italic", "oblique", "mono", "serif", "black", "light", "thin", "condensed", "narrow")
# A collection of fonts has a face for each country, as the shapes of letters differ. Scripts (the first word of a
# letter's name in Unicode) and how the name of the face for their readers ends. Chinese characters without letters of
# another script are taken for simplified Chinese.
FACES = {"HIRAGANA": " JP", "KATAKANA": " JP", "HANGUL": " KR", "CJK": " SC"}
FROM_THE_RIGHT = {"R", "AL"}  # bidirectional classes of letters
MARKS = {"Mn", "Mc"}  # categories of what is set above, below or around another letter
WITHOUT_SHAPE = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # categories that no font needs to have
COLLECTIONS = (".ttc", ".otc")  # suffixes of files with several faces
SIZE_TRIED = 12  # px; fonts that consist of pictures (colour emoji) have one size only, and are left out by that


class Face(NamedTuple):
    """A font file, and which of the faces in it."""

    file: Path
    number: int = 0


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font that draws the text with letters of `size` pixels: Pillow's own, or, where that lacks letters, another
    one that has all of them."""
    return _font(None if text.isascii() else face_of(text), size)


def drawable_names(names: Mapping[int, str]) -> dict[int, str]:
    """Class names as pictures show them: where no font here has the letters of a name, the number of its class. Then
    the log has a warning, once."""
    names = {number: visible_name(name) for number, name in names.items()}
    lacking = tuple(name for name in names.values() if not name.isascii() and face_of(name) is None)
    if lacking:
        _warn_once(lacking)
    return {number: str(number) if name in lacking else name for number, name in names.items()}


@cache
def _warn_once(lacking: tuple[str, ...]) -> None:
    LOGGER.warning(
        f"no font here has the letters of {len(lacking)} of the class names ({lacking[0]}): pictures show the numbers "
        "of these classes. A font with them, once it is installed, is found by itself; for Chinese, Japanese and "
        "Korean that is fonts-noto-cjk on Debian and Ubuntu"
    )


def face_of(text: str) -> Face | None:
    """A face with all letters of the text and those of ASCII. None where no font here has them, or where this Pillow
    cannot place them: scripts that run from the right, and marks on letters, need its libraqm."""
    return _face_with(frozenset(letter for letter in text if not letter.isascii()))


@lru_cache(maxsize=4096)
def _face_with(letters: frozenset[str]) -> Face | None:
    """face_of, by the letters beyond ASCII."""
    letters = frozenset(letter for letter in letters if unicodedata.category(letter) not in WITHOUT_SHAPE)
    if any(map(_needs_layout, letters)) and not features.check("raqm"):
        return None
    codes = np.array([*range(ord(" "), ord("~") + 1), *map(ord, letters)], np.uint32)
    found = next((file for file in font_files() if np.isin(codes, _codes_in(file)).all()), None)
    return None if found is None else Face(found, _face_index(found, letters))


def _needs_layout(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in FROM_THE_RIGHT or unicodedata.category(letter) in MARKS


@cache
def font_files() -> tuple[Path, ...]:
    """Fonts to choose from, the best first: the one that comes with matplotlib, then those of this computer."""
    import matplotlib
    from matplotlib import font_manager

    always = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return (always, *sorted(map(Path, font_manager.findSystemFonts()), key=_rank))


def _rank(file: Path) -> tuple[int, int, str]:
    """The smaller, the better: place in PREFERRED, number of less readable styles, name."""
    name = file.name.lower()
    place = next((place for place, part in enumerate(PREFERRED) if part in name), len(PREFERRED))
    return place, sum(style in name for style in LESS_READABLE), name


@cache
def _codes_in(file: Path) -> np.ndarray:
    """Unicode numbers (n,) that the font has shapes for; none of a font that cannot be used."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, SIZE_TRIED)
        return np.array(sorted(FT2Font(str(file)).get_charmap()), np.uint32)
    except (OSError, RuntimeError):  # no font, broken, or of a kind that one of the two does not read
        return np.zeros(0, np.uint32)


def _face_index(file: Path, letters: frozenset[str]) -> int:
    """Which face of a collection has the letters' usual shapes; 0 where none is known to have, or the file has but
    one."""
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in letters}
    wanted = next((ending for script, ending in FACES.items() if script in scripts), None)
    if wanted is None or file.suffix.lower() not in COLLECTIONS:
        return 0
    index = 0
    while True:
        try:
            family = ImageFont.truetype(file, SIZE_TRIED, index=index).getname()[0]
        except OSError:  # no more faces
            return 0
        if family and family.endswith(wanted):
            return index
        index += 1


@lru_cache(maxsize=256)
def _font(face: Face | None, size: int) -> ImageFont.FreeTypeFont:
    """The face in that size; None: Pillow's own."""
    if face is None:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow gives a font of one size where a size was asked for"
        return font
    return ImageFont.truetype(face.file, size, index=face.number)


@lru_cache(maxsize=256)
def chart_family(text: str) -> str | None:
    """The name by which matplotlib, from now on, knows a font that has the text's letters. None where its own font has
    them, or no font here."""
    from matplotlib import font_manager

    face = None if text.isascii() else face_of(text)
    if face is None or face.file == font_files()[0]:
        return None
    if all(entry.fname != str(face.file) for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(face.file)
    families = {entry.name for entry in font_manager.fontManager.ttflist if entry.fname == str(face.file)}
    wanted = _font(face, SIZE_TRIED).getname()[0]
    return wanted if wanted in families else min(families)
