"""Metrics of labelled tasks, as the GLUE benchmark and conlleval count them, in plain numpy.

Shares are fractions in 0..1, correlations lie in -1..1; what is undefined (a class that never occurs, a
constant column) counts as 0, without a warning.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

METRICS = (
    "accuracy",
    "f1",
    "macro_f1",
    "micro_f1",
    "matthews",
    "pearson",
    "spearman",
    "exact_match",
    "entity_f1",
)
"""Names of the metrics by which runs are compared: of every one, more is better."""


def classification_metrics(gold: Sequence[int], predicted: Sequence[int], *, num_labels: int) -> dict[str, float]:
    r"""Metrics of one class per example.

    With $C_{ij}$ the number of examples of class $i$ predicted as $j$, $t$ its row sums, $p$ its column sums
    and $n$ its sum, Matthews' coefficient for any number of classes is
    $(n \operatorname{tr} C - t \cdot p) / \sqrt{(n^2 - p \cdot p)(n^2 - t \cdot t)}$.

    Args:
        gold: The right class of each example, from 0.
        predicted: The predicted class of each example.
        num_labels: Number of classes.

    Returns:
        `accuracy`, `macro_f1` (the mean over the classes that occur in `gold` or `predicted`), `matthews`,
        and with two classes `f1` of class 1.

    Raises:
        ValueError: There are no examples, the lengths differ, or a class is outside 0..num_labels-1.
    """
    _check_lengths(gold, predicted)
    gold_ids, predicted_ids = np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    for ids in (gold_ids, predicted_ids):
        if ids.min() < 0 or ids.max() >= num_labels:
            raise ValueError(f"classes must be in 0..{num_labels - 1}, got {ids.min()}..{ids.max()}")
    pairs = np.bincount(gold_ids * num_labels + predicted_ids, minlength=num_labels**2)
    confusion = pairs.reshape(num_labels, num_labels).astype(np.float64)
    hits, of_gold, of_predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    total = float(len(gold_ids))
    f1 = _f1(hits, of_predicted, of_gold)
    spread = (total**2 - of_predicted @ of_predicted) * (total**2 - of_gold @ of_gold)
    covariance = total * hits.sum() - of_gold @ of_predicted
    metrics = {
        "accuracy": float(hits.sum() / total),
        "macro_f1": float(f1[of_gold + of_predicted > 0].mean()),
        "matthews": float(covariance / np.sqrt(spread)) if spread > 0 else 0.0,
    }
    return metrics | {"f1": float(f1[1])} if num_labels == 2 else metrics


def multilabel_metrics(gold: Bool[np.ndarray, "B C"], predicted: Bool[np.ndarray, "_ _"]) -> dict[str, float]:
    """Metrics of any number of classes per example.

    Args:
        gold: Whether the example has the class.
        predicted: Whether it is predicted to have it, in the shape of `gold`.

    Returns:
        `exact_match` (the whole set is right), `micro_f1` (over all decisions together) and `macro_f1` (the
        mean over all classes, 0 for one that never occurs).

    Raises:
        ValueError: There are no examples, or the shapes differ.
    """
    _check_lengths(gold, predicted)
    if gold.shape != predicted.shape or gold.ndim != 2:
        raise ValueError(f"gold and predicted must have one shape (B, C), got {gold.shape} and {predicted.shape}")
    hits, of_predicted, of_gold = (gold & predicted).sum(0), predicted.sum(0), gold.sum(0)
    together = (counts.sum(keepdims=True) for counts in (hits, of_predicted, of_gold))
    return {
        "exact_match": float((gold == predicted).all(1).mean()),
        "micro_f1": float(_f1(*together)[0]),
        "macro_f1": float(_f1(hits, of_predicted, of_gold).mean()),
    }


def regression_metrics(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Metrics of one number per example: `pearson`, `spearman` (ties get their mean rank) and `mse`.

    A constant column has correlation 0. If any number is NaN or infinite, all three are NaN.

    Raises:
        ValueError: There are no examples, or the lengths differ.
    """
    _check_lengths(gold, predicted)
    x, y = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return dict.fromkeys(("pearson", "spearman", "mse"), float("nan"))
    with np.errstate(over="ignore"):  # numbers beyond 1e154: the error is infinite, and says so
        mse = float(np.mean((x - y) ** 2))
    return {"pearson": _correlation(x, y), "spearman": _correlation(_ranks(x), _ranks(y)), "mse": mse}


def tagging_metrics(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Metrics of one tag per token.

    Args:
        gold: The right tags of each sentence.
        predicted: The predicted tags, as many per sentence.

    Returns:
        `accuracy` over tokens and, if every tag is O, B-x or I-x, `entity_f1`: F1 over whole spans with their
        type, all types together. As in conlleval an I- after O or after another type begins a span.

    Raises:
        ValueError: There are no tokens, or the lengths differ.
    """
    _check_lengths(gold, predicted)
    for sentence, (right, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(right) != len(guess):
            raise ValueError(f"sentence {sentence} has {len(right)} gold tags but {len(guess)} predicted ones")
    pairs = [pair for sentence in zip(gold, predicted, strict=True) for pair in zip(*sentence, strict=True)]
    if not pairs:
        raise ValueError("there are no tokens to score")
    metrics = {"accuracy": sum(right == guess for right, guess in pairs) / len(pairs)}
    if all(tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2) for pair in pairs for tag in pair):
        spans, guesses = _spans(gold), _spans(predicted)
        found = len(spans) + len(guesses)
        metrics["entity_f1"] = 2 * len(spans & guesses) / found if found else 0.0
    return metrics


def _check_lengths(gold: Sequence[object] | np.ndarray, predicted: Sequence[object] | np.ndarray) -> None:
    if len(gold) != len(predicted) or not len(gold):
        raise ValueError(f"gold and predicted must be equally long and not empty: {len(gold)} and {len(predicted)}")


def _f1(
    hits: Shaped[np.ndarray, " C"], of_predicted: Shaped[np.ndarray, " C"], of_gold: Shaped[np.ndarray, " C"]
) -> Float[np.ndarray, " C"]:
    """F1 = 2 hits / (predicted + gold), and 0 where there is neither."""
    found = of_predicted + of_gold
    return np.where(found > 0, 2 * hits / np.maximum(found, 1), 0.0)


def _correlation(x: Float[np.ndarray, " B"], y: Float[np.ndarray, " B"]) -> float:
    if x.min() == x.max() or y.min() == y.max():  # first, as all zeros would divide 0 by 0 below
        return 0.0
    x, y = (values / np.abs(values).max() for values in (x, y))  # so that squares neither overflow nor vanish
    x, y = (values - values.mean() for values in (x, y))
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else 0.0


def _ranks(values: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _spans(sentences: list[list[str]]) -> set[tuple[int, int, int, str]]:
    """Every span of BIO tags as (sentence, first token, token after it, type)."""
    spans: set[tuple[int, int, int, str]] = set()
    for sentence, tags in enumerate(sentences):
        start, kind = 0, ""  # kind: type of the open span, "" for none
        for token, tag in enumerate([*tags, "O"]):
            if tag[:2] == "I-" and tag[2:] == kind:
                continue
            if kind:
                spans.add((sentence, start, token, kind))
            start, kind = token, tag[2:]
    return spans
