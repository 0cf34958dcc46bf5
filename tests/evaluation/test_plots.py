from __future__ import annotations

import importlib.util
import sys
from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from instructor_st.evaluation.instruction_map import project
from instructor_st.evaluation.plots import (
    plot_categories,
    plot_ladder,
    plot_paraphrase_spread,
    plot_two_instructions,
    render,
)
from tests.evaluation.made_results import make_result

LEVELS = ("none", "tag", "short", "full", "detailed", "wrong")
MODELS = [f"org/a-model-with-a-long-name-{letter}" for letter in "abcdef"]
LONG_NAMES = [
    f"{name}{end}"
    for name in ("AmazonCounterfactualClassification", "cqadupstack_programmers_retrieval", "TwitterSemEval2015")
    for end in ("", "-english-v1", " (German, test split)", "_long_texts", "VeryLongNameWithoutSeparators$x_1$")
]


def make_results(models, tasks, conditions, **given):
    return [
        make_result(task, value, value - 0.02, value + 0.03, model=model, condition=condition, **given)
        for i, model in enumerate(models)
        for j, task in enumerate(tasks)
        for k, condition in enumerate(conditions)
        for value in [0.4 + 0.01 * i + 0.02 * (j % 5) + 0.005 * k]
    ]


def read_points(container, *, horizontal):
    """Values, places, and how far the error bars reach to either side."""
    line, _, (bars,) = container
    values, places = line.get_data() if horizontal else line.get_data()[::-1]
    side = 0 if horizontal else 1
    reach = [
        (value - ends[0][side], ends[1][side] - value) for value, ends in zip(values, bars.get_segments(), strict=True)
    ]
    return list(values), list(places), reach


def read_containers(axes, *, horizontal):
    found = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    return [read_points(each, horizontal=horizontal) for each in found]


def check_layout(figure):
    """Nothing is cut off, no legend lies on data, and labels do not lie on each other."""
    figure.draw_without_rendering()
    page = figure.bbox
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    for legend in legends:
        box = legend.get_window_extent()
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1 + 1
        assert box.y1 <= page.y1 + 1
        for axes in figure.axes:
            assert not box.overlaps(axes.get_window_extent()), "a legend lies on data"
    texts = [each for each in (figure._supxlabel, figure._supylabel) if each is not None]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        low, high = sorted(axes.get_xlim())
        texts += [each for each in axes.get_xticklabels() if low <= each.get_position()[0] <= high]
        low, high = sorted(axes.get_ylim())
        texts += [each for each in axes.get_yticklabels() if low <= each.get_position()[1] <= high]
    shown = [text for text in texts if text.get_text()]
    boxes = [text.get_window_extent() for text in shown]
    for text, box in zip(shown, boxes, strict=True):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 <= box.y0 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} is cut off"
        assert text.get_fontsize() >= 8
    for (one, first), (two, second) in combinations(zip(shown, boxes, strict=True), 2):
        overlap = (
            min(first.x1, second.x1) - max(first.x0, second.x0),
            min(first.y1, second.y1) - max(first.y0, second.y0),
        )
        assert min(overlap) < 1, f"{one.get_text()!r} lies on {two.get_text()!r}"


def get_legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_categories_show_the_means_with_their_intervals():
    results = [
        make_result("a", 0.5, 0.47, 0.54),
        make_result("b", 0.7, 0.66, 0.73),
        make_result("c", 0.3, category="Clustering"),
        make_result("a", 0.4, condition="none"),
        make_result("c", 0.2, condition="none", category="Clustering"),
        make_result("r", 0.9, suite="robustness"),
    ]
    figure = plot_categories(results)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Clustering (1)", "STS (2)", "All tasks (3)"]
    none, right = read_containers(axes, horizontal=True)
    # Without an instruction, b is missing, so neither STS nor all tasks has a mean.
    assert none[0] == [0.2]
    assert right[0] == pytest.approx([0.3, 0.6, 0.5])
    # As worked out for the grid: 0.025 to either side; c has no interval, and so not all tasks.
    assert right[2][0] == pytest.approx((0, 0))
    assert right[2][1] == pytest.approx((0.025, 0.025))
    assert right[2][2] == pytest.approx((0, 0))
    # Two marks a row stand a fifth of a row from its middle; the first row is on top.
    assert none[1] == pytest.approx([-0.21])
    assert right[1] == pytest.approx([0.21, 1.21, 2.21])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert get_legend_texts(figure) == ["base, none", "base, right"]
    assert axes.get_xlabel() == "Spearman correlation, mean over tasks (higher is better)"
    faces = [to_hex(container[0].get_markerfacecolor()) for container in axes.containers]
    assert faces[0] == "#ffffff"
    assert faces[1] != "#ffffff"


def test_one_category_has_no_row_for_all():
    figure = plot_categories([make_result("a", 0.5, 0.4, 0.6)])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["STS (1)"]
    assert figure.axes[0].get_xlabel() == "Spearman correlation (higher is better)"
    check_layout(figure)


def test_models_differ_in_colour_and_shape_and_conditions_in_filling():
    figure = plot_categories(make_results(MODELS, ["a"], ["none", "right"]))
    lines = [container[0] for container in figure.axes[0].containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 6
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 6
    assert all(to_hex(line.get_markerfacecolor()) == "#ffffff" for line in lines[::2])
    lone = plot_categories(make_results(MODELS[:1], ["a"], LEVELS)).axes[0].containers
    assert len({container[0].get_marker() for container in lone}) == 6
    three = plot_categories(make_results(MODELS[:2], ["a"], ["none", "short", "right"])).axes[0].containers
    assert [container[0].get_fillstyle() for container in three] == ["full", "full", "bottom"] * 2


def test_an_interval_beside_its_value_is_drawn_to_the_value():
    figure = plot_categories([make_result("a", 0.5, 0.51, 0.6)])
    ((_, _, reach),) = read_containers(figure.axes[0], horizontal=True)
    assert reach[0] == pytest.approx((0, 0.1))


def test_ladder_shows_each_level_of_each_task():
    results = make_results(["m", "n"], ["a", "b"], LEVELS, suite="robustness")
    results = [each for each in results if (each.model, each.task, each.condition) != ("n", "b", "short")]
    figure = plot_ladder([*results, make_result("a", 0.9, suite="robustness", condition="paraphrase 1")])
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    m, n = read_containers(first, horizontal=False)
    assert m[0] == pytest.approx([0.4, 0.405, 0.41, 0.415, 0.42, 0.425])
    assert n[0] == pytest.approx([0.41, 0.415, 0.42, 0.425, 0.43, 0.435])
    assert m[2] == [pytest.approx((0.02, 0.03))] * 6
    # Two models stand to either side of the level.
    assert m[1] == pytest.approx([level - 0.126 for level in range(6)])
    assert n[1] == pytest.approx([level + 0.126 for level in range(6)])
    assert [label.get_text() for label in first.get_xticklabels()] == list(LEVELS)
    # The line goes through the levels, not to the wrong instruction.
    lines = [line for line in first.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    assert lines[0].get_ydata() == pytest.approx(m[0][:5])
    missing = read_containers(second, horizontal=False)[1]
    assert missing[0] == pytest.approx([0.43, 0.435, 0.445, 0.45, 0.455])
    assert get_legend_texts(figure) == ["m", "n"]
    assert figure.get_supylabel() == "Spearman correlation (higher is better)"


def test_ladder_of_several_metrics_says_which_in_each_panel():
    results = make_results(["m"], ["a"], LEVELS, suite="robustness")
    results += make_results(["m"], ["b"], LEVELS, suite="robustness", metric="ndcg_at_10", category="Retrieval")
    figure = plot_ladder(results)
    assert sorted(axes.get_ylabel().replace("\n", " ") for axes in figure.axes) == ["Spearman correlation", "nDCG@10"]


def read_marks(axes, marker, *, hollow=False):
    lines = [
        line for line in axes.lines if line.get_marker() == marker and (line.get_markerfacecolor() == "none") is hollow
    ]
    return [(list(np.round(line.get_xdata(), 6)), list(np.round(line.get_ydata(), 6))) for line in lines]


def test_spread_shows_changes_against_none():
    values = {"none": 0.5, "full": 0.53, "paraphrase 1": 0.52, "paraphrase 2": 0.49, "tag": 0.9}
    results = [make_result("a", value, suite="robustness", condition=name) for name, value in values.items()]
    figure = plot_paraphrase_spread(results)
    (axes,) = figure.axes
    assert read_marks(axes, "o") == [([0.02, -0.01], [0, 0])]
    assert read_marks(axes, "o", hollow=True) == [([0.03], [0])]
    ranges = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert ranges[0] == pytest.approx([-0.01, 0.02])
    assert ranges[1] == [0, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a"]
    assert axes.get_xlabel() == "Spearman correlation, change against no instruction (higher is better)"
    assert get_legend_texts(figure) == ["base", "a paraphrase", "full instruction", "no instruction"]
    check_layout(figure)


def test_spread_shows_values_where_a_model_lacks_none():
    values = {"none": 0.5, "right": 0.53, "paraphrase 1": 0.52, "paraphrase 2": 0.49}
    results = [make_result("a", value, suite="robustness", condition=name) for name, value in values.items()]
    results.append(make_result("b", 0.7, suite="robustness", condition="paraphrase 1", metric="ap"))
    (axes,) = plot_paraphrase_spread(results).axes
    assert read_marks(axes, "x") == [([0.5], [0])]
    assert read_marks(axes, "o") == [([0.52, 0.49], [0, 0]), ([0.7], [1])]
    assert read_marks(axes, "o", hollow=True) == [([0.53], [0])]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "a\n(Spearman correlation)",
        "b\n(average precision)",
    ]
    assert axes.get_xlabel() == "each task's metric (higher is better)"


@pytest.mark.parametrize(("models", "tasks"), [(1, 1), (1, 15), (2, 2), (3, 7), (6, 15), (6, 4)])
def test_no_label_is_cut_off_or_covered(models, tasks):
    conditions = [*LEVELS, *(f"paraphrase {number}" for number in range(1, 6))]
    robust = make_results(MODELS[:models], LONG_NAMES[:tasks], conditions, suite="robustness", category="Retrieval")
    check_layout(plot_ladder(robust))
    check_layout(plot_paraphrase_spread(robust))
    own = make_results(MODELS[:models], LONG_NAMES[:tasks], ["none", "right"])
    own = [make_result(**{**vars(each), "category": each.task}) for each in own]
    check_layout(plot_categories(own))


def make_texts(count=40, kinds=4):
    generator = np.random.default_rng(0)
    topics, moods = generator.integers(0, kinds, count), generator.integers(0, 2, count)
    vectors = generator.normal(size=(count, 8)) * 0.1
    first = vectors + np.eye(8)[topics % 8]
    second = vectors + np.eye(8)[moods]
    labels = {"labels_a": [f"topic {each}" for each in topics], "labels_b": [f"mood {each}" for each in moods]}
    return first, second, {**labels, "instruction_a": "By topic: ", "instruction_b": "By mood: "}


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_map_shows_each_text_under_both_instructions_and_both_labels(projection):
    first, second, given = make_texts()
    figure = plot_two_instructions(first, second, **given, projection=projection, aspect_a="topic", aspect_b="mood")
    places = project(first, projection), project(second, projection)
    assert len(figure.axes) == 4
    for number, axes in enumerate(figure.axes):
        labels = given["labels_b" if number > 1 else "labels_a"]
        assert len(axes.collections) == len(set(labels))
        for dots in axes.collections:
            chosen = [
                place for place, label in zip(places[number % 2], labels, strict=True) if label == dots.get_label()
            ]
            assert np.allclose(dots.get_offsets(), chosen)
        heavy = axes.spines["top"].get_linewidth() > 2
        assert heavy is (number in (0, 3))
    legends = [axes.get_legend() for axes in figure.axes]
    assert [legend is not None for legend in legends] == [False, True, False, True]
    assert [legends[1].get_title().get_text(), legends[3].get_title().get_text()] == ["topic", "mood"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["“By topic:”", "“By mood:”"]
    check_layout(figure)


def test_map_greys_rare_labels_and_shows_them_all_the_same():
    first, second, given = make_texts(count=80, kinds=9)
    given["labels_a"] = ["rare", "rarer", *given["labels_a"][2:]]
    figure = plot_two_instructions(first, second, **given, projection="pca")
    dots = figure.axes[0].collections
    assert len(dots) == 7
    assert dots[-1].get_label() == "5 others"
    assert sum(len(each.get_offsets()) for each in dots) == 80
    assert len({to_hex(each.get_facecolor()[0][:3]) for each in dots}) == 7
    check_layout(figure)


def test_pca_is_the_eigenvectors_projection():
    points = make_texts()[0]
    centred = points - points.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    wanted = centred @ vectors[:, ::-1][:, :2]
    assert np.allclose(np.abs(project(points, "pca")), np.abs(wanted))
    assert project(points[:, :1], "pca").shape == (40, 2)


def test_map_refuses_what_does_not_fit():
    first, second, given = make_texts()
    with pytest.raises(ValueError, match=r"vectors_b have the shape \(39, 8\); wanted are 40 rows"):
        plot_two_instructions(first, second[:-1], **given)
    with pytest.raises(ValueError, match="40 labels a and 39 labels b"):
        plot_two_instructions(first, second, **{**given, "labels_b": given["labels_b"][:-1]})
    second[3, 1] = np.nan
    with pytest.raises(ValueError, match="vectors_b: the vector of text 3 is not finite"):
        plot_two_instructions(first, second, **given)
    with pytest.raises(ValueError, match="Unknown projection 'umap'"):
        plot_two_instructions(first, first, **given, projection="umap")
    with pytest.raises(ValueError, match="three texts or more, not 2"):
        plot_two_instructions(first[:2], first[:2], **{**given, "labels_a": ["a", "b"], "labels_b": ["a", "b"]})


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(kind):
    import matplotlib

    first, second, given = make_texts()
    results = make_results(["m", "n"], ["a", "b"], ["none", "right"])

    def draw():
        return [render(plot_categories(results), kind), render(plot_two_instructions(first, second, **given), kind)]

    before = draw()
    with matplotlib.rc_context({"font.size": 20, "xtick.direction": "in", "savefig.dpi": 30, "svg.hashsalt": "other"}):
        assert draw() == before
        assert matplotlib.rcParams["font.size"] == 20
    assert b"matplotlib.org" not in before[0] or kind == "svg"
    assert b"dc:date" not in before[0]


def test_a_picture_is_twice_as_fine_as_700_pixels():
    import struct

    picture = render(plot_categories([make_result("a", 0.5)]), "png")
    assert struct.unpack(">I", picture[16:20]) == (1400,)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "instructor-st\[plot\]"'):
        plot_categories([make_result("a", 0.5)])


@pytest.mark.parametrize("module", ["plots", "plot_style", "instruction_map", "report"])
def test_matplotlib_and_sklearn_are_not_imported_before_a_plot_is_drawn(monkeypatch, module):
    for name in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "sklearn")]:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.find_spec(f"instructor_st.evaluation.{module}")
    fresh = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    monkeypatch.setitem(sys.modules, spec.name, fresh)
    spec.loader.exec_module(fresh)
    assert fresh.__all__
