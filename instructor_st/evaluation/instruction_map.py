"""The same texts under two instructions, in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from instructor_st.evaluation.plot_style import COLORS, MARKERS, start_figure, styled
from instructor_st.evaluation.result_labels import wrap_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Projection", "plot_two_instructions", "project"]

Array = npt.NDArray[np.floating[Any]]
Projection = Literal["tsne", "pca"]

_DIMENSIONS = 50
_AXES = {"tsne": "t-SNE", "pca": "principal component"}
_OTHER = "#BBBBBB"


@styled
def plot_two_instructions(
    vectors_a: npt.ArrayLike,
    vectors_b: npt.ArrayLike,
    *,
    labels_a: Sequence[str],
    labels_b: Sequence[str],
    instruction_a: str,
    instruction_b: str,
    aspect_a: str = "label a",
    aspect_b: str = "label b",
    projection: Projection = "tsne",
    seed: int = 0,
) -> Figure:
    """Plot the same texts as two instructions place them, coloured by what each instruction is about.

    A model that follows its instructions separates the colours in the two panels with a heavy frame, where colour and
    instruction belong together, better than in the other two.

    Args:
        vectors_a: Embeddings under the one instruction, `(texts, dimension)`.
        vectors_b: Embeddings of the same texts under the other one.
        labels_a: What the one instruction asks about, a label a text.
        labels_b: What the other one asks about.
        instruction_a: The one instruction.
        instruction_b: The other one.
        aspect_a: What `labels_a` are, such as `topic`.
        aspect_b: What `labels_b` are.
        projection: `tsne` (after PCA to 50 dimensions) or `pca`.
        seed: Of the projection.

    Returns:
        The figure: a column an instruction, a row a kind of label; labels after the most frequent six are grey.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the four are not of as many texts, there are fewer than three, or a vector is not finite.
    """
    points = [_check(vectors, len(labels_a), place) for vectors, place in ((vectors_a, "a"), (vectors_b, "b"))]
    if len(labels_b) != len(labels_a):
        raise ValueError(f"{len(labels_a)} labels a and {len(labels_b)} labels b; they must be of the same texts.")
    projected = [project(each, projection, seed=seed) for each in points]
    figure = start_figure(5.6)
    for row, (labels, aspect) in enumerate(((labels_a, aspect_a), (labels_b, aspect_b))):
        for column, instruction in enumerate((instruction_a, instruction_b)):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            _draw_map(axes, projected[column], labels)
            _frame(axes, is_heavy=row == column)
            if row == 0:
                axes.set_title(wrap_label(f"“{instruction.strip()}”" if instruction.strip() else "no instruction", 36))
            if row == 1:
                axes.set_xlabel(f"{_AXES[projection]} 1")
            if column == 0:
                axes.set_ylabel(f"{_AXES[projection]} 2")
        legend = axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.02, 1.0),
            borderaxespad=0,
            handletextpad=0.2,
            markerscale=1.3,
            title=wrap_label(aspect, 18),
        )
        legend.set_alignment("left")
    return figure


def project(vectors: Array, projection: Projection = "tsne", *, seed: int = 0) -> Array:
    """Bring vectors to two dimensions, with the same result every time.

    Args:
        vectors: `(texts, dimension)`, at least three texts.
        projection: `tsne` (van der Maaten and Hinton 2008), after PCA to 50 dimensions at most, or `pca`.
        seed: Of both.

    Returns:
        `(texts, 2)`.

    Raises:
        ValueError: If the projection is unknown.
    """
    if projection not in _AXES:
        raise ValueError(f"Unknown projection {projection!r}; known are {', '.join(_AXES)}.")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Sums over several threads differ in their last bits from run to run.
    with threadpool_limits(1):
        dimensions = 2 if projection == "pca" else _DIMENSIONS
        pca = PCA(min(dimensions, *vectors.shape), svd_solver="full", random_state=seed)
        reduced: Array = pca.fit_transform(vectors)
        if projection == "tsne":
            perplexity = min(30.0, (len(vectors) - 1) / 3)
            reduced = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    if reduced.shape[1] < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1])))
    return reduced


def _check(vectors: npt.ArrayLike, count: int, place: str) -> Array:
    array: Array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or len(array) != count:
        raise ValueError(f"vectors_{place} have the shape {array.shape}; wanted are {count} rows, one a label.")
    if count < 3:
        raise ValueError(f"A map needs three texts or more, not {count}.")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"vectors_{place}: the vector of text {row} is not finite.")
    return array


def _draw_map(axes: Axes, points: Array, labels: Sequence[str]) -> None:
    counts = Counter(labels)
    # Ties by name, so that the order of the texts does not matter.
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    shown, others = (
        (ranked, []) if len(ranked) <= len(COLORS) else (ranked[: len(COLORS) - 1], ranked[len(COLORS) - 1 :])
    )
    size = float(np.clip(4000 / len(points), 7, 30))
    names = np.asarray(labels, dtype=object)
    for number, label in enumerate(shown):
        x, y = points[names == label].T
        style: dict[str, Any] = {
            "color": COLORS[number],
            "marker": MARKERS[number],
            "label": wrap_label(str(label), 18),
        }
        axes.scatter(x, y, size, linewidths=0, alpha=0.75, zorder=2, **style)
    if others:
        x, y = points[np.isin(names, others)].T
        axes.scatter(x, y, size * 0.6, color=_OTHER, marker=".", linewidths=0, label=f"{len(others)} others", zorder=1)


def _frame(axes: Axes, *, is_heavy: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.05)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(2.2 if is_heavy else 0.6)
        spine.set_color("black" if is_heavy else "#999999")
