import math
import re
import tomllib
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tunesmith.report.training import below, constant_loss, loss_terms, lowest, render_training, verdict

SVG = "{http://www.w3.org/2000/svg}"
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


def looks(count=5, *, terms=("lm",)):
    return [
        {
            "step": 100 * i, "epoch": None, "tokens": 20_000 * i, "seconds": 90.0 * i, "train_loss": 5.0 / i,
            "dev_loss": 5.5 / i, "dev_metric": -5.5 / i, **{f"train_{term}": 4.0 / i for term in terms},
        }
        for i in range(1, count + 1)
    ]  # fmt: skip


METRICS = {
    "dev": {"loss": 3.25, "lm_loss": 3.25, "perplexity": 25.790340, "bits_per_byte": 1.3712},
    "metric": "loss", "validation_loss": 3.25, "constant_loss": 6.5, "constant_losses": {"lm": 6.5},
    "steps": 1_234, "tokens": 5_678_901, "tokens_per_second": 43_219.4, "train_seconds": 131.0,
    "peak_memory_bytes": 2_340_000_000, "total_parameters": 11_170_000, "trainable_parameters": 13_190_123,
    "saved_bytes": 44_700_000, "precision": "bf16", "kind": "decoder", "examples_per_second": 9.0,
}  # fmt: skip
TWO = METRICS | {
    "dev": {"loss": 13.0, "lm_loss": 3.0, "rtd_loss": 0.2},
    "validation_loss": 13.0, "constant_loss": 26.0, "constant_losses": {"lm": 6.0, "rtd": 0.4}, "kind": "encoder",
}  # fmt: skip
SETTINGS = {
    "model": {"preset": "gpt2_mini", "num_layers": None},
    "objective": {"name": "clm"},
    "input": {"name": "full_sentences"},
    "train": {"learning_rate": 1e-3, "max_steps": 1234},
}


def figures(source):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", source, re.DOTALL)]


def texts(root):
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def test_every_number_shown_is_the_metrics():
    page = Page(render_training(looks(), METRICS, SETTINGS))
    for words in (
        "Pretraining · gpt2_mini · clm",
        "The validation loss is 3.250 nats per target, 50.0 % below the best constant guess (6.500); "
        "perplexity 25.79, 1.371 bits per byte.",
        "Kind decoder", "Objective clm", "Input full_sentences", "Precision bf16", "Steps 1,234", "Tokens 5,678,901",
        "Tokens per second 43,219", "Training time 2 min 11 s", "Peak memory 2.34 GB",
        "Parameters of the model 11,170,000", "Parameters that trained 13,190,123", "Saved 44.7 MB",
    ):  # fmt: skip
        assert words in page.text
    assert len(page.ids) == len(set(page.ids))


def test_loss_stands_over_tokens_and_over_minutes_beside_the_constant_guess():
    tokens, minutes = figures(render_training(looks(), METRICS, SETTINGS))
    for root, axis, ticks in (
        (tokens, "tokens", ["0", "25 k", "50 k", "75 k", "100 k"]),
        (minutes, "minutes", ["0", "2", "4", "6"]),
    ):
        shown = texts(root)
        assert {"train", "dev", "constant guess", axis, "loss"} <= set(shown)
        assert shown[: shown.index(axis)] == ticks
        assert root[0].text == f"loss over {axis}"
        assert root[1].text == "train ends at 1.000, dev ends at 1.100, the best constant guess gets 6.500."
    dashed = [path for path in tokens.iter(f"{SVG}path") if "stroke-dasharray" in path.get("style", "")]
    assert len(dashed) == 1


def test_lines_stand_where_the_looks_say():
    curve = looks(3)
    tokens, _ = figures(render_training(curve, METRICS, SETTINGS))
    (dev,) = [
        path for path in tokens.iter(f"{SVG}path")
        if "#2f78d8" in path.get("style", "") and path.get("d").count("L") == 2
    ]  # fmt: skip
    points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", dev.get("d"))]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-4)  # equal steps in tokens
    assert (y1 - y0) / (y2 - y1) == pytest.approx((5.5 - 2.75) / (2.75 - 5.5 / 3), rel=1e-4)
    assert y0 < y1 < y2  # downwards is larger


def test_several_terms_have_a_table_and_a_figure_each():
    source = render_training(looks(terms=("lm", "rtd")), TWO, SETTINGS)
    page = Page(source)
    assert "The validation loss is 13.000, 50.0 % below the best constant guess (26.000)." in page.text
    assert "lm 3.000 6.000 50.0 % below" in page.text
    assert "rtd 0.200 0.400 50.0 % below" in page.text
    titles = [root[0].text for root in figures(source)]
    assert titles == ["loss over tokens", "loss over minutes", "lm loss over tokens", "rtd loss over tokens"]
    assert "train ends at 0.800, dev ends at 0.200, the best constant guess gets 0.400." in figures(source)[3][1].text
    assert "Terms of the loss" not in Page(render_training(looks(), METRICS, SETTINGS)).text
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_any_number_of_looks(count):
    source = render_training(looks(count, terms=("lm", "rtd")), TWO, SETTINGS)
    page = Page(source)
    assert len(figures(source)) == (4 if count else 0)
    assert ("There is no look at the development split to draw." in page.text) == (count == 0)
    assert "lm 3.000" in page.text


def test_what_was_not_measured_is_left_out():
    curve = looks(4)
    curve[1] |= {"dev_loss": math.nan, "train_loss": None}
    curve[2] |= {"dev_loss": math.inf}
    curve[3] = {"step": 400}
    source = render_training(curve, METRICS, SETTINGS)
    assert "train ends at 1.667, dev ends at 5.500" in figures(source)[0][1].text
    lost = {name: None for name in METRICS} | {"dev": {"loss": math.nan, "perplexity": math.inf}}
    for metrics in ({}, lost, METRICS | {"validation_loss": math.nan}):
        for points in ([], curve, [{"dev_loss": None, "tokens": math.nan}]):
            page = Page(render_training(points, metrics, {}))
            assert "The run has no validation loss." in page.text
            assert not re.search(r"\b(nan|inf|none)\b", page.text, re.IGNORECASE)


def test_a_constant_guess_is_compared_only_where_it_is_whole():
    assert constant_loss(METRICS) == 6.5
    assert constant_loss({"validation_loss": 3.0, "constant_loss": 6.0}) == 6.0
    partly = TWO | {"constant_losses": {"lm": 6.0}}
    assert constant_loss(partly) is None
    page = render_training(looks(), partly, SETTINGS)
    assert "constant guess" not in verdict(partly)
    assert "The dashed line" not in page
    assert constant_loss(METRICS | {"constant_loss": 0.0}) is None


def test_share_below_the_constant_guess():
    assert below(1.0, 4.0) == "75.0 % below"
    assert below(5.0, 4.0) == "25.0 % above"
    assert below(4.0001, 4.0) == "level with"


@pytest.mark.parametrize(
    ("perplexity", "shown"), [(1.0, "1.00"), (998.123, "998.12"), (12_345.0, "12.3 k"), (math.exp(700), "1.01e+304")]
)
def test_perplexity_of_any_size(perplexity, shown):
    metrics = {"validation_loss": 1.0, "dev": {"loss": 1.0, "lm_loss": 1.0, "perplexity": perplexity}}
    assert verdict(metrics) == f"The validation loss is 1.000 nats per target; perplexity {shown}."


def test_lowest_dev_loss_before_the_end_is_told():
    curve = looks(4)
    assert lowest(curve) is None
    curve[3]["dev_loss"] = 9.0
    assert lowest(curve) == "The dev loss was lowest before the end: 1.833 at step 300 of 400."
    assert lowest(curve) in Page(render_training(curve, METRICS, SETTINGS)).text
    assert lowest([]) is None


def test_terms_come_from_wherever_they_are_known():
    names = [term.name for term in loss_terms(looks(terms=("loss", "swd")), TWO)]
    assert names == ["lm", "rtd", "swd"]


def test_settings_read_back():
    source = render_training(looks(), METRICS, SETTINGS)
    inner = re.search(r"<details>.*?<code>(.*?)</code>", source, re.DOTALL)[1]
    found = tomllib.loads(inner.replace("&#34;", '"'))
    assert found == SETTINGS | {"model": {"preset": "gpt2_mini"}}


@pytest.mark.parametrize(
    ("kind", "generates"), [("decoder", True), ("encoder-decoder", True), ("encoder", False), (None, False)]
)
def test_next_steps(kind, generates):
    text = Page(render_training(looks(), METRICS | {"kind": kind}, SETTINGS)).text
    assert "tunesmith tune RUN DATA --out" in text
    assert ("tunesmith generate RUN --prompt" in text) == generates


def test_page_makes_no_request_and_runs_no_script():
    source = render_training(looks(), TWO, SETTINGS)
    page = Page(source)
    assert not {"script", "img", "iframe", "object", "video", "form"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert set(re.findall(r"https?://[^\s\"'<]*", source)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in source
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_hostile_names_stay_text():
    evil = "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    metrics = TWO | {
        "dev": {"loss": 1.0, f"{evil}_loss": 1.0, "rtd_loss": 1.0},
        "constant_losses": {evil: 2.0, "rtd": 2.0}, "kind": evil, "precision": evil + "\udcff",
    }  # fmt: skip
    settings = {"model": {"preset": evil}, "objective": evil, evil: {"a": evil + "\udcff"}}
    source = render_training(looks(terms=(evil, "rtd")), metrics, settings)
    source.encode("utf-8")
    page = Page(source)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert evil in page.text
    assert len(figures(source)) == 4
