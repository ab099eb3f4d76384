import re
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest

from tunesmith.report import plot
from tunesmith.report.table import leaderboard
from tunesmith.report.trial import CurvePoint, Prediction, Trial

SVG = "{http://www.w3.org/2000/svg}"


def trials(*, parameters=(0, 1000, 10**7), seeds=3):
    made = []
    for index, count in enumerate(parameters):
        for seed in range(seeds):
            curve = tuple(
                CurvePoint(step, step / 10, 2 / (step + seed + 1), None, step / 100 + index / 10 + seed / 50)
                for step in range(10)
            )
            metrics = {
                "dev": {"accuracy": 0.5 + index / 10 + seed / 100},
                "trainable_parameters": count,
                "train_seconds": 3.0 * (index + 1),
            }
            made.append(Trial(f"method{index}", seed, metrics, curve))
    return made


def rows(**options):
    return leaderboard(trials(**options), metric="accuracy", split="dev")


def answers(*pairs):
    return [Prediction("text", gold, predicted) for gold, predicted in pairs]


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


FIGURES = {
    "parameters": lambda: plot.quality_against_parameters(rows()),
    "time": lambda: plot.quality_against_time(rows()),
    "curve": lambda: plot.learning_curve(trials(), quantity="dev_metric", label="dev accuracy"),
    "confusion": lambda: plot.confusion_matrix(answers(("a", "b"), ("a", "a")), labels=["a", "b"], method="lora"),
    "scatter": lambda: plot.gold_against_predicted(answers(("1.0", "1.5"), ("2.0", "1.9")), method="lora"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_safe_to_embed(name):
    svg = FIGURES[name]()
    root = ElementTree.fromstring(svg)
    assert svg.startswith("<svg ")
    assert [root[0].tag, root[1].tag] == [f"{SVG}title", f"{SVG}desc"]
    assert root.get("aria-labelledby").split() == [root[0].get("id"), root[1].get("id")]
    assert root[1].text
    # Nothing reaches beyond the element: no style sheet, no address but the name of the format.
    assert "<style" not in svg
    assert set(re.findall(r"https?://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}
    assert "#010203" not in svg
    assert "currentColor" in svg
    assert "DejaVu" not in svg
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(ids)


def test_figures_of_one_page_share_no_id_and_repeat_exactly():
    pages = [make() for make in FIGURES.values()]
    ids = [identifier for svg in pages for identifier in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    assert pages == [make() for make in FIGURES.values()]


def test_drawing_leaves_the_users_settings_alone():
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 33.0}):
        before = dict(matplotlib.rcParams)
        FIGURES["parameters"]()
        assert dict(matplotlib.rcParams) == before


def test_a_method_without_trainable_parameters_stands_apart_at_zero():
    shown = texts(plot.quality_against_parameters(rows()))
    assert {"method0", "method1", "method2", "0", "1 k", "10 M"} <= set(shown)
    assert "0" not in texts(plot.quality_against_parameters(rows(parameters=(1000, 10**6))))
    assert "0" in texts(plot.quality_against_parameters(rows(parameters=(0, 0))))


def test_tradeoff_of_one_seed_and_of_nothing():
    assert "method1" in texts(plot.quality_against_time(rows(seeds=1)))
    nothing = leaderboard([Trial("a", 0, {"dev": {}})], metric="accuracy", split="dev")
    assert plot.quality_against_time(nothing) == ""
    assert plot.metric_range(nothing)[0] < plot.metric_range(nothing)[1]


def test_one_wild_interval_does_not_flatten_the_figure():
    made = [Trial("a", s, {"dev": {"accuracy": v}}) for s, v in enumerate((0.70, 0.80))]
    low, high = plot.metric_range(leaderboard(made, metric="accuracy", split="dev"))
    assert 0.4 < low < 0.75 < high < 1.1  # the interval itself is 0.11 to 1.39


def test_learning_curve_averages_shared_steps_and_skips_what_was_not_measured():
    svg = plot.learning_curve(trials(), quantity="dev_metric", label="dev accuracy")
    assert "method2 ends at 0.310" in svg  # 0.09 + 0.2 + the mean of 0, 0.02 and 0.04
    assert plot.learning_curve(trials(), quantity="dev_loss", label="loss") == ""
    diverged = Trial("a", 0, {}, (CurvePoint(1, 0.1, 2.0), CurvePoint(2, 0.2, float("nan"))))
    assert "a ends at 2.000" in plot.learning_curve([diverged], quantity="train_loss", label="loss")


def test_learning_curve_of_seeds_without_a_shared_step():
    made = [Trial("a", s, {}, (CurvePoint(s, s / 10, 1.0), CurvePoint(s + 10, s + 1, 0.5))) for s in range(2)]
    assert "a" in texts(plot.learning_curve(made, quantity="train_loss", label="loss"))


def test_names_at_the_ends_of_curves_do_not_touch():
    made = [Trial(f"m{i}", 0, {}, (CurvePoint(1, 1.0, 1.0), CurvePoint(2, 2.0, 0.5))) for i in range(6)]
    svg = plot.learning_curve(made, quantity="train_loss", label="loss")
    nodes = ElementTree.fromstring(svg).iter(f"{SVG}text")
    heights = sorted(float(node.get("y")) for node in nodes if re.fullmatch(r"m\d", "".join(node.itertext())))
    assert len(heights) == 6
    assert heights[-1] < 220  # above the axis and its numbers
    assert min(high - low for low, high in pairwise(heights)) > 9


def test_confusion_matrix_counts():
    pairs = [("cat", "cat")] * 7 + [("cat", "dog")] * 3 + [("dog", "bird")] * 11
    svg = plot.confusion_matrix(answers(*pairs), labels=["dog", "cat"], method="lora")
    shown = texts(svg)
    assert {"7", "3", "11"} <= set(shown)
    assert [name for name in shown if name in ("dog", "cat", "bird")] == ["dog", "cat", "bird"] * 2
    assert "Most frequent mistakes: dog as bird 11 times; cat as dog 3 times." in svg


def test_confusion_matrix_of_many_labels_keeps_the_most_confused():
    labels = [f"label{i}" for i in range(50)]
    pairs = [(name, name) for name in labels] + [("label7", "label48")] * 5
    pairs += [(f"label{i}", f"label{i + 1}") for i in range(10, 40)]
    shown = texts(plot.confusion_matrix(answers(*pairs), labels=labels, method="lora"))
    rest = [name for name in shown if name.startswith("label")]
    assert len(rest) == 2 * plot.MAX_CONFUSION_LABELS
    assert {"label7", "label48"} <= set(rest)
    assert "label3" not in rest


def test_scatter_is_capped():
    many = answers(*((str(i), str(i + 0.5)) for i in range(5 * plot.MAX_SCATTER_POINTS)))
    svg = plot.gold_against_predicted(many, method="lora")
    assert 0.9 * plot.MAX_SCATTER_POINTS < svg.count("<use ") < 1.1 * plot.MAX_SCATTER_POINTS


def test_labels_are_shown_as_they_are():
    hostile = ['<script>alert("1")</script>', "$x$ & y", "语言", 'id="a"', "#010203", "\ud800\x00"]
    pairs = [(name, hostile[0]) for name in hostile]
    svg = plot.confusion_matrix(answers(*pairs), labels=hostile, method="<b>")
    assert "<script" not in svg
    assert "<b>" not in svg
    shown = texts(svg.encode("utf-8"))
    assert {"$x$ & y", "语言", 'id="a"', "#010203"} <= set(shown)
