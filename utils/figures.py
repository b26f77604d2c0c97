"""What all charts have in common: how they look, how class names are written, how they are saved. matplotlib without
pyplot, whose state is global. Not what is charted: utils/plots.py, utils/curves.py and the others that draw."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from utils.files import atomic_write
from utils.fonts import chart_family, drawable_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = Literal["x", "y", "both", ""]
INK, SOFT_INK, GRID = "#2b2f36", "#6b7280", "#e5e7eb"  # titles and means; labels and ticks; lines behind the data
GREY = "#9aa3af"  # of what others are held against
SERIES = ("#0a84ff", "#e6194b", "#12b886", "#ffb000", "#8f3fff", "#ff5a00")  # lines of one chart, told apart in print
LONGEST_NAME = 32  # characters of a class name in a chart


def new_figure(rows: int, columns: int, *, size_inches: tuple[float, float], **subplots: Any) -> tuple["Figure", Any]:
    """(figure, its axes as an array (rows, columns)), laid out so that nothing overlaps; `subplots` are options of
    matplotlib's Figure.subplots. Any thread may call it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=size_inches, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12), facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def style_axes(axes: "Axes", title: str = "", *, x_label: str = "", y_label: str = "", grid: Grid = "both") -> None:
    """Gives one pair of axes the look of our charts, its title and labels; `grid` says which lines are behind the data
    ("" for none)."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x_label, fontsize=9, color=SOFT_INK)
    axes.set_ylabel(y_label, fontsize=9, color=SOFT_INK)
    axes.tick_params(labelsize=8, colors=SOFT_INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)


def add_legend(axes: "Axes", **options: Any) -> None:
    """A legend without a frame for what has a label in the axes; options go to matplotlib."""
    axes.legend(**{"frameon": False, "fontsize": 8, "labelcolor": INK, **options})


def add_common_legend(figure: "Figure", axes: "Axes", *, columns: int) -> None:
    """One legend for a figure whose axes all show the same as these: above them, at the left."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)


def chart_names(names: Mapping[int, str]) -> dict[int, str]:
    """Class names as charts show them: those of drawable_names, with the middle left out of long ones, and $ as itself,
    where matplotlib would begin a formula."""
    return {number: _shortened(name).replace("$", r"\$") for number, name in drawable_names(names).items()}


def _shortened(name: str) -> str:
    """Beginning and end of what is longer than LONGEST_NAME: long names often differ at one of the two alone."""
    if len(name) <= LONGEST_NAME:
        return name
    end = LONGEST_NAME // 3
    return f"{name[: LONGEST_NAME - end - 1]}…{name[-end:]}"


def even_selection(rows: np.ndarray, most: int) -> np.ndarray:
    """Every k-th of the rows, with the smallest k that leaves at most so many."""
    return rows[:: max(math.ceil(len(rows) / most), 1)]


def use_fonts_with_the_letters_(figure: "Figure") -> None:
    """Changes the figure: a text with letters that matplotlib's own font lacks gets another one that has them."""
    from matplotlib.text import Text

    for axes in figure.axes:  # the texts of ticks are empty until somebody asks for them
        axes.get_xticklabels()
        axes.get_yticklabels()
    for text in figure.findobj(Text):
        if family := chart_family(text.get_text()):
            text.set_fontfamily([*text.get_fontfamily(), family])


def save_figure(figure: "Figure", file: str | Path, *, dpi: int = 160, grow: bool = False) -> None:
    """Writes the figure in the format of the file's suffix, atomically. `grow` makes the picture so large that it also
    has what is drawn outside the figure."""
    file = Path(file)
    use_fonts_with_the_letters_(figure)
    with atomic_write(file) as stream:
        figure.savefig(stream, dpi=dpi, format=file.suffix[1:], bbox_inches="tight" if grow else None, pad_inches=0.15)
