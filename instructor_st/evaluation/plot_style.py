"""What all plots share: colours and shapes that the colour-blind tell apart, sizes for 700 pixels, legends outside."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict

from instructor_st.evaluation.result_labels import wrap_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "MARKERS",
    "WIDTH",
    "MarkerStyle",
    "add_legend",
    "choose_style",
    "render",
    "start_figure",
    "styled",
]

# Okabe and Ito, "Color Universal Design" (2008); yellow is left out, for it is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", "p")
WIDTH = 7.0

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    # Names with a dollar sign are no formulas.
    "text.parse_math": False,
    # The same plot is the same bytes.
    "svg.hashsalt": "instructor-st",
}
_FILLS: tuple[Literal["full", "bottom", "left", "top", "right"], ...] = ("full", "bottom", "left", "top", "right")

_Given = ParamSpec("_Given")


class MarkerStyle(TypedDict):
    """Options of a line's marker, as matplotlib names them."""

    color: str
    marker: str
    fillstyle: Literal["full", "left", "right", "bottom", "top"]
    markerfacecolor: str


def load_matplotlib() -> None:
    """Import matplotlib.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        import matplotlib.style  # noqa: F401
    except ImportError:
        raise ImportError('Plots need matplotlib: pip install "instructor-st[plot]".') from None


@contextmanager
def _use_style() -> Iterator[None]:
    load_matplotlib()
    import matplotlib.style

    # The user's own settings must not change the plots.
    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


def styled(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
    """Draw with this package's style, whatever the user's settings are; matplotlib is imported when it is called."""

    @wraps(draw)
    def draw_styled(*args: _Given.args, **kwargs: _Given.kwargs) -> Figure:
        with _use_style():
            figure = draw(*args, **kwargs)
            # Sizes are settled by the layout while the style holds.
            figure.draw_without_rendering()
            return figure

    return draw_styled


def start_figure(height: float) -> Figure:
    """Make an empty figure, `WIDTH` inches wide, that lays itself out; no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Write a figure as a file's bytes, the same ones for the same figure.

    Args:
        figure: The figure.
        kind: The format.

    Returns:
        The bytes; a PNG is twice as fine as the figure's size at 100 dots an inch.
    """
    buffer = io.BytesIO()
    with _use_style():
        figure.savefig(buffer, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    return buffer.getvalue()


def choose_style(model: int, condition: str, conditions: Sequence[str], *, several: bool) -> MarkerStyle:
    """Choose how a model under a condition is marked.

    Several models differ in colour and shape, and their conditions in filling; one model's conditions differ in colour
    and shape. Without an instruction is hollow always.

    Args:
        model: The model's number.
        condition: The condition.
        conditions: All conditions.
        several: Whether there are several models.

    Returns:
        The style.
    """
    others = [each for each in conditions if each != "none"]
    number = model if several else conditions.index(condition)
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    is_hollow = condition == "none"
    fill = _FILLS[others.index(condition) % len(_FILLS)] if several and not is_hollow else "full"
    # White rather than nothing, or the interval's line would show through.
    return {"color": color, "marker": marker, "fillstyle": fill, "markerfacecolor": "white" if is_hollow else color}


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Put a legend above all axes, in as many columns as fit into the figure's width; the figure grows by its height.

    Args:
        figure: The figure.
        handles: What is explained.
        labels: The explanations.
    """
    wrapped = [wrap_label(label, 44) for label in labels]
    # A character is about 0.065 inches wide at this size, a handle and its gaps 0.5.
    longest = max(len(line) for label in wrapped for line in label.split("\n"))
    columns = max(1, min(len(labels), int((WIDTH - 0.2) / (0.5 + 0.065 * longest))))
    tallest = max(label.count("\n") + 1 for label in wrapped)
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.18 * tallest * math.ceil(len(labels) / columns))
    figure.legend(
        handles,
        wrapped,
        loc="outside upper left",
        ncols=columns,
        handletextpad=0.4,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def stripe(axes: Axes, count: int) -> None:
    """Shade every other of `count` rows at 0, 1, ..., first row on top."""
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", zorder=0, linewidth=0)
    axes.set_ylim(count - 0.5, -0.5)
