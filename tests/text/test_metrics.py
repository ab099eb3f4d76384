import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from tunesmith.text.metrics import (
    METRICS,
    classification_metrics,
    multilabel_metrics,
    regression_metrics,
    tagging_metrics,
)

TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]
NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=40)


def pairs_of(values):
    return st.lists(st.tuples(values, values), min_size=1, max_size=40)


@given(pairs=pairs_of(st.integers(0, 3)), num_labels=st.sampled_from([4, 6]))
def test_classification_equals_scikit_learn(pairs, num_labels):
    gold, predicted = map(list, zip(*pairs, strict=True))
    metrics = classification_metrics(gold, predicted, num_labels=num_labels)
    assert set(metrics) == {"accuracy", "macro_f1", "matthews"}
    assert metrics["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    if len(set(gold + predicted)) > 1:  # scikit-learn warns of a single class
        assert metrics["matthews"] == pytest.approx(matthews_corrcoef(gold, predicted), abs=1e-12)


@given(pairs=pairs_of(st.integers(0, 1)))
def test_two_classes_have_the_f1_of_class_one(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    metrics = classification_metrics(gold, predicted, num_labels=2)
    assert metrics["f1"] == pytest.approx(f1_score(gold, predicted, pos_label=1, zero_division=0))


def test_classification_by_hand():
    metrics = classification_metrics([1, 1, 0, 0], [1, 0, 0, 0], num_labels=2)
    assert metrics == pytest.approx(
        {"accuracy": 0.75, "f1": 2 / 3, "macro_f1": (2 / 3 + 0.8) / 2, "matthews": 1 / math.sqrt(3)}
    )


def test_predicting_one_class_only_is_defined():
    metrics = classification_metrics([0, 0], [0, 0], num_labels=2)
    assert metrics == {"accuracy": 1.0, "macro_f1": 1.0, "matthews": 0.0, "f1": 0.0}


@given(rows=st.integers(1, 8), classes=st.integers(1, 4), data=st.data())
def test_multilabel_equals_scikit_learn(rows, classes, data):
    bits = data.draw(st.lists(st.booleans(), min_size=2 * rows * classes, max_size=2 * rows * classes))
    gold, predicted = np.array(bits, dtype=bool).reshape(2, rows, classes)
    metrics = multilabel_metrics(gold, predicted)
    assert set(metrics) == {"exact_match", "micro_f1", "macro_f1"}
    assert metrics["exact_match"] == pytest.approx((gold == predicted).all(axis=1).mean())
    if classes > 1:  # scikit-learn takes one column for two exclusive classes
        for average in ("micro", "macro"):
            oracle = f1_score(gold, predicted, average=average, zero_division=0)
            assert metrics[f"{average}_f1"] == pytest.approx(oracle)


def test_multilabel_by_hand():
    gold = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)
    predicted = np.array([[1, 0, 0], [0, 0, 1]], dtype=bool)
    metrics = multilabel_metrics(gold, predicted)
    assert metrics == pytest.approx({"exact_match": 0.5, "micro_f1": 0.8, "macro_f1": (1 + 0 + 2 / 3) / 3})


@given(pairs=NUMBERS)
def test_regression_equals_scipy(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    assume(len(set(gold)) > 1)
    assume(len(set(predicted)) > 1)
    metrics = regression_metrics(gold, predicted)
    assert metrics["pearson"] == pytest.approx(stats.pearsonr(gold, predicted).statistic, abs=1e-9)
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(gold, predicted).statistic, abs=1e-9)
    assert metrics["mse"] == pytest.approx(np.mean((np.array(gold) - np.array(predicted)) ** 2))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300])
def test_a_constant_has_no_correlation(constant):
    columns = ([1.0, 2.0, 4.0], [constant] * 3)
    for gold, predicted in (columns, columns[::-1]):
        metrics = regression_metrics(gold, predicted)
        assert metrics["pearson"] == metrics["spearman"] == 0.0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_correlations_do_not_depend_on_the_scale(scale):
    metrics = regression_metrics([scale, 2 * scale, 4 * scale], [1.0, 3.0, 2.0])
    assert metrics["pearson"] == pytest.approx(stats.pearsonr([1, 2, 4], [1, 3, 2]).statistic)
    assert metrics["spearman"] == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_prediction_that_is_no_number_is_not_hidden(bad):
    assert all(math.isnan(value) for value in regression_metrics([1.0, 2.0], [1.0, bad]).values())


def entities_by_rules(tags):
    """Spans by conlleval's two questions, does a span end before this token, does one start at it."""
    spans, start = set(), None
    padded = ["O", *tags, "O"]
    for position in range(1, len(padded)):
        before, now = padded[position - 1], padded[position]
        other_type = before[2:] != now[2:]
        ends = before != "O" and (now[0] in "BO" or other_type)
        starts = now[0] == "B" or (now[0] == "I" and (before == "O" or other_type))
        if ends:
            spans.add((start, position, before[2:]))
        if starts:
            start = position
    return spans


@given(sentences=st.lists(pairs_of(st.sampled_from(TAGS)), min_size=1, max_size=5))
def test_entities_follow_the_rules_of_conlleval(sentences):
    gold = [[right for right, _ in sentence] for sentence in sentences]
    predicted = [[guess for _, guess in sentence] for sentence in sentences]
    right = {(i, *span) for i, tags in enumerate(gold) for span in entities_by_rules(tags)}
    found = {(i, *span) for i, tags in enumerate(predicted) for span in entities_by_rules(tags)}
    f1 = 2 * len(right & found) / (len(right) + len(found)) if right or found else 0.0
    metrics = tagging_metrics(gold, predicted)
    assert metrics["entity_f1"] == pytest.approx(f1)
    pairs = [pair for sentence in sentences for pair in sentence]
    assert metrics["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


@pytest.mark.parametrize(
    ("gold", "predicted", "f1"),
    [
        ("B-x I-x O", "B-x I-x O", 1.0),
        ("B-x I-x O", "I-x I-x O", 1.0),  # I- after O begins a span
        ("B-x I-x O", "B-x O O", 0.0),  # too short
        ("B-x I-x O", "B-x B-x O", 0.0),  # cut in two
        ("B-x I-y O", "B-x B-y O", 1.0),  # I- of another type begins a span
        ("B-x I-x B-y", "B-x I-x B-x", 0.5),
        ("O O O", "O O O", 0.0),
    ],
)
def test_entities_by_hand(gold, predicted, f1):
    assert tagging_metrics([gold.split()], [predicted.split()])["entity_f1"] == f1


def test_a_span_never_crosses_sentences():
    metrics = tagging_metrics([["B-x"], ["I-x"]], [["B-x"], ["O"]])
    assert metrics["entity_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("tag", ["NOUN", "E-x", "B-", "I"])
def test_other_tags_have_no_entities(tag):
    assert tagging_metrics([["O", tag]], [["O", "O"]]) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "call",
    [
        lambda: classification_metrics([], [], num_labels=2),
        lambda: classification_metrics([0], [0, 1], num_labels=2),
        lambda: classification_metrics([0], [2], num_labels=2),
        lambda: classification_metrics([-1], [0], num_labels=2),
        lambda: multilabel_metrics(np.zeros((2, 1), bool), np.zeros((2, 3), bool)),
        lambda: regression_metrics([1.0], []),
        lambda: tagging_metrics([["O"]], [["O", "O"]]),
        lambda: tagging_metrics([[]], [[]]),
    ],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(ValueError, match=r"gold|classes|tokens"):
        call()


def test_every_metric_that_is_compared_comes_out_of_a_function():
    bits = np.array([[True, False], [False, True]])
    out = (
        classification_metrics([0, 1], [0, 1], num_labels=2)
        | multilabel_metrics(bits, bits)
        | regression_metrics([1.0, 2.0], [1.0, 2.0])
        | tagging_metrics([["B-x", "O"]], [["B-x", "O"]])
    )
    assert set(out) == {*METRICS, "mse"}
    assert all(out[name] == pytest.approx(1.0) for name in METRICS)
    assert all(type(value) is float for value in out.values())
