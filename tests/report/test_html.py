import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tunesmith.report.html import MAX_HARD_EXAMPLES, hard_examples, render_report
from tunesmith.report.trial import CurvePoint, Prediction, Trial

LABELS = ["red", "green", "blue"]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, ids and text, and fails on a tag that is not closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.ids, self.open, self.words, self.attributes = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, *pair) for pair in attrs)
        self.ids.extend(value for name, value in attrs if name == "id")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def comparison(*, methods=("lora", "bitfit"), seeds=2, texts=("first", "second", "third"), curve=True):
    made = []
    for index, method in enumerate(methods):
        for seed in range(seeds):
            predictions = tuple(
                Prediction(text, LABELS[i % 3], LABELS[(i + (i % 2)) % 3], 0.9) for i, text in enumerate(texts)
            )
            metrics = {
                "dev": {"accuracy": 0.8 - index / 100 + seed / 100, "macro_f1": 0.5},
                "test": {"accuracy": 0.71},
                "trainable_parameters": 1000 * (2 - index),
                "train_seconds": 12.0,
            }
            points = tuple(CurvePoint(s, s / 4, 1 / s, None, s / 10) for s in range(1, 5)) if curve else ()
            made.append(Trial(method, seed, metrics, points, predictions))
    return made


def regression(values):
    """One trial per list of answers to the gold values 1, 2, 3..."""
    return [
        Trial("probe", seed, {"dev": {"pearson": 0.5}}, (), tuple(
            Prediction(f"text {i}", f"{i + 1:.2f}", f"{value:.2f}", None, abs(i + 1 - value))
            for i, value in enumerate(answers)
        ))
        for seed, answers in enumerate(values)
    ]  # fmt: skip


def report(trials, **options):
    settings = {
        "title": "Colours", "metric": "accuracy", "split": "dev", "labels": LABELS,
        "facts": {"data": "colours.csv"}, "next_steps": ["tunesmith predict RUN texts.txt"],
    }  # fmt: skip
    return render_report(trials=trials, **(settings | options))


def test_report_holds_every_section():
    page = Page(report(comparison()))
    for words in (
        "lora is best with 0.805 dev accuracy, 0.010 ahead of bitfit",
        "Leaderboard", "within noise", "test accuracy", "0.710", "Quality and cost", "Learning curves",
        "Confusion matrix", "Most often wrong", "second", "blue ×4", "4 of 4 trials", "colours.csv",
        "tunesmith predict RUN texts.txt",
    ):  # fmt: skip
        assert words in page.text
    assert page.tags.count("svg") == 2 + 2 + 2 + 2  # strips, trade-offs, curves, matrices
    assert len(page.ids) == len(set(page.ids))


def test_report_on_the_test_split_says_that_dev_chose():
    page = Page(report(comparison(), split="test", chosen_on="dev"))
    for words in (
        "lora is best with 0.805 dev accuracy, 0.010 ahead of bitfit",
        "lora reaches 0.710 test accuracy",
        "Methods are ranked by dev accuracy, so that test accuracy has had no say in the choice.",
    ):
        assert words in page.text
    assert "ranked by" not in Page(report(comparison())).text


def test_page_makes_no_request_and_admits_only_its_own_script():
    source = report(comparison())
    page = Page(source)
    assert not {"img", "iframe", "object", "video", "form"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert set(re.findall(r"https?://[^\s\"'<]*", source)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in source
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_hostile_text_stays_text():
    evil = "</p><script>alert(1)</script><img src=x onerror=alert(1)>"
    trials = comparison(methods=(evil, 'b" onclick="alert(1)'), texts=(evil, evil + "2", "\ud800\x00"))
    trials = [
        Trial(t.method, t.seed, t.metrics, t.curve, tuple(Prediction(p.text, evil, "x") for p in t.predictions))
        for t in trials
    ]
    source = report(
        trials, title=evil, facts={evil: evil, "path": "\udcff"}, next_steps=[evil, "\udcff"], labels=[evil, "x"]
    )
    source.encode("utf-8")
    page = Page(source)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert evil in page.text


def test_long_texts_are_cut():
    source = report(comparison(texts=("a", "word " * 5000, "c")))
    assert source.count("word ") < 110
    assert "word…" in source


def test_single_trial_without_curve_reads_well():
    page = Page(report(comparison(methods=("probe",), seeds=1, curve=False)))
    assert "probe reaches 0.800 dev accuracy with one seed" in page.text
    assert "One seed: there is no interval" in page.text
    for words in (
        "Learning curves",
        "Quality and cost",
        "within noise",
        "95 % interval",
        "×",
        "trials",
        "nan",
    ):
        assert words not in page.text
    assert not [value for _, name, value in page.attributes if name == "class" and "sortable" in value]


def test_methods_without_a_curve_are_named():
    mixed = comparison(methods=("lora",)) + comparison(methods=("probe",), curve=False)
    assert "Without a learning curve: probe." in Page(report(mixed)).text


def test_regression_shows_values_and_largest_errors():
    page = Page(report(regression([[1.0, 5.0, 3.5], [1.1, 4.0, 3.5]]), metric="pearson", labels=None))
    assert "Gold and predicted values" in page.text
    assert "Confusion matrix" not in page.text
    assert page.text.index("text 1") < page.text.index("text 2") < page.text.index("text 0")
    assert "4.00 to 5.00" in page.text
    assert "mean error 2.500" in page.text


def test_other_tasks_have_no_matrix():
    page = Page(report(comparison(), labels=None))
    assert "Confusion matrix" not in page.text
    assert "Most often wrong" in page.text


def test_hard_examples_come_by_mistakes_then_by_confidence():
    def answer(seed, *given):
        return Trial("m", seed, {}, (), tuple(Prediction(str(i), "x", *pair) for i, pair in enumerate(given)))

    trials = [
        answer(0, ("x", 0.9), ("y", 0.6), ("y", 0.9), ("z", 0.9)),
        answer(1, ("x", 0.9), ("y", 0.6), ("z", 0.9), ("x", 0.9)),
        Trial("no predictions", 0, {}),
    ]
    hard = hard_examples(trials)
    assert [(item.text, item.wrong, item.trials) for item in hard] == [("2", 2, 2), ("1", 2, 2), ("3", 1, 2)]
    assert hard[1].answers == ("y ×2",)
    assert len(hard_examples(comparison(texts=[str(i) for i in range(200)]))) == MAX_HARD_EXAMPLES


def test_predictions_of_different_examples_are_refused():
    trials = comparison(methods=("a",), seeds=1) + comparison(methods=("b",), seeds=1, texts=("1", "2", "3"))
    with pytest.raises(ValueError, match="prediction 0 is of different examples"):
        hard_examples(trials)
    with pytest.raises(ValueError, match="shorter"):
        hard_examples(comparison(seeds=1) + comparison(seeds=1, texts=("first",)))
