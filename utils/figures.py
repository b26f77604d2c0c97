"""The one look of our charts: matplotlib figures without pyplot and its global state. What is charted: utils/plots.py,
utils/curves.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.files import atomic_write
from utils.fonts import chart_family, drawable_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = Literal["x", "y", "both", ""]
INK, SOFT_INK, GRID = "#2b2f36", "#6b7280", "#e5e7eb"
SERIES = ("#0a84ff", "#e6194b", "#12b886", "#ffb000", "#8f3fff", "#ff5a00")  # lines of one chart, told apart in print


def new_figure(rows: int, columns: int, *, size_inches: tuple[float, float], **subplots: Any) -> tuple["Figure", Any]:
    """(figure, its axes as an array (rows, columns)), laid out so that nothing overlaps. Any thread may call it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=size_inches, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12), facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def style_axes(axes: "Axes", title: str = "", *, x_label: str = "", y_label: str = "", grid: Grid = "both") -> None:
    """Our frame, ticks, grid ("" for none) and texts on one pair of axes."""
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
    """A frameless legend in our ink; options go to matplotlib."""
    axes.legend(**{"frameon": False, "fontsize": 8, "labelcolor": INK, **options})


def chart_names(names: Mapping[int, str]) -> dict[int, str]:
    """Class names as charts show them: drawable_names, and $ as itself, where matplotlib would begin a formula."""
    return {number: name.replace("$", r"\$") for number, name in drawable_names(names).items()}


def use_fonts_with_the_letters_(figure: "Figure") -> None:
    """Gives each text of the figure, in place, a font that has the letters which matplotlib's own lacks."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # writes the ticks' texts, which else drawing does
    for text in figure.findobj(Text):
        if family := chart_family(text.get_text()):
            text.set_fontfamily([*text.get_fontfamily(), family])


def save_figure(figure: "Figure", file: str | Path, *, dpi: int = 160) -> None:
    """Writes the figure in the format of the file's suffix, atomically."""
    file = Path(file)
    use_fonts_with_the_letters_(figure)
    with atomic_write(file) as stream:
        figure.savefig(stream, dpi=dpi, format={"jpg": "jpeg"}.get(file.suffix[1:], file.suffix[1:]))
