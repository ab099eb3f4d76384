"""The report of a comparison as one HTML file that makes no request."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesmith.report import plot
from tunesmith.report.page import Plate, render_page
from tunesmith.report.table import (
    Row,
    bytes_text,
    count_text,
    interval_text,
    leaderboard,
    metric_name,
    number_text,
    other_columns,
    seconds_text,
    seeds_text,
    verdict,
)
from tunesmith.report.trial import Prediction, Trial, plain

MAX_HARD_EXAMPLES = 30
MAX_LABEL = 120


@dataclass(frozen=True)
class HardExample:
    """An example that many trials get wrong.

    Attributes:
        text: the input.
        gold: the right answer.
        answers: the wrong answers, most frequent first, each with how many trials gave it if there are
            several trials; for regression the range of the answers.
        wrong: number of trials that got it wrong; for regression, number of trials.
        trials: number of trials that predicted it.
        error: mean absolute error over the trials; None where the task is not a regression.
    """

    text: str
    gold: str
    answers: tuple[str, ...]
    wrong: int
    trials: int
    error: float | None


@dataclass(frozen=True)
class _Cell:
    """A cell of the leaderboard: what it says, and the number that sorts it (None sorts last)."""

    text: str
    value: float | None


def render_report(
    *,
    title: str,
    trials: Sequence[Trial],
    metric: str,
    split: str,
    chosen_on: str | None = None,
    facts: Mapping[str, str],
    labels: Sequence[str] | None,
    next_steps: Sequence[str],
) -> str:
    """The whole report as the text of an HTML file.

    Args:
        title: heading of the page.
        trials: of one comparison; at least one.
        metric: ranks the methods.
        split: where the `metric` that is shown is read.
        chosen_on: where the `metric` that ranks them is read; `split` by default.
        facts: what to know about data, model, machine and versions, by name, in the order to show.
        labels: class names in order, for a confusion matrix; None where the task has no classes.
        next_steps: commands that a reader may type next, one block each.

    Raises:
        ValueError: if two trials hold predictions of different examples.
    """
    rows = leaderboard(trials, metric=metric, split=split, chosen_on=chosen_on)
    chosen = rows[0].choice if rows else None
    hard = hard_examples(trials)
    regression = any(item.error is not None for trial in trials for item in trial.predictions)
    values: dict[str, object] = dict(
        title=title,
        metric=metric_name(split, metric),
        chosen=metric_name(chosen.split, chosen.metric) if chosen is not None else None,
        verdict=verdict(rows),
        rows=rows,
        columns=_columns(rows, metric_name(split, metric)),
        strip=_strips(rows),
        others=other_columns(rows),
        number_text=number_text,
        num_trials=len(trials),
        has_intervals=any(row.ci95_low is not None for row in rows),
        any_missing=any(row.missing_seeds for row in rows),
        tradeoffs=_tradeoffs(rows),
        curves=_curves(trials, metric),
        without_curve=_without_curve(trials),
        answers=_answers(rows, trials, labels=labels, regression=regression),
        hard=hard,
        regression=regression,
        has_predictions=any(trial.predictions for trial in trials),
        facts=facts,
        next_steps=next_steps,
    )
    return render_page("comparison.html", values)


def hard_examples(trials: Sequence[Trial], *, limit: int = MAX_HARD_EXAMPLES) -> list[HardExample]:
    """The examples most often wrong over all trials; for regression those of the largest mean absolute error.

    Among equally often wrong ones, those on which the trials were surest come first.

    Raises:
        ValueError: if two trials hold predictions of different examples.
    """
    told = [trial.predictions for trial in trials if trial.predictions]
    found: list[tuple[float, float, HardExample]] = []
    for index, answers in enumerate(zip(*told, strict=True)):
        first = answers[0]
        if any((item.text, item.gold) != (first.text, first.gold) for item in answers):
            raise ValueError(f"trials: prediction {index} is of different examples; give all in the same order")
        errors = [item.error for item in answers if item.error is not None]
        wrong = list(answers) if errors else [item for item in answers if item.predicted != item.gold]
        if not wrong:
            continue
        error = sum(errors) / len(errors) if errors else None
        example = HardExample(
            text=first.text,
            gold=first.gold,
            answers=_range_of(wrong) if errors else _counted(wrong, trials=len(answers)),
            wrong=len(wrong),
            trials=len(answers),
            error=error,
        )
        surety = sum(item.confidence or 0.0 for item in wrong) / len(wrong)
        found.append((error if error is not None else len(wrong), surety, example))
    found.sort(key=lambda item: item[:2], reverse=True)
    return [example for _, _, example in found[:limit]]


def _counted(wrong: Sequence[Prediction], *, trials: int) -> tuple[str, ...]:
    counts = Counter(item.predicted for item in wrong).most_common(4)
    shown = [(plain(answer, limit=MAX_LABEL), count) for answer, count in counts]
    return tuple(f"{answer} ×{count}" if trials > 1 else answer for answer, count in shown)


def _range_of(answers: Sequence[Prediction]) -> tuple[str, ...]:
    low = min(answers, key=lambda item: float(item.predicted)).predicted
    high = max(answers, key=lambda item: float(item.predicted)).predicted
    return (low,) if low == high else (f"{low} to {high}",)


def _columns(rows: Sequence[Row], name: str) -> list[tuple[str, list[_Cell]]]:
    """The leaderboard's columns after the method: heading and one cell per row."""

    def column(heading: str, words: Callable[[Row], str], value: Callable[[Row], float | None]):
        return heading, [_Cell(words(row), value(row)) for row in rows]

    columns = [column(name, lambda row: number_text(row.mean), lambda row: row.mean)]
    if any(row.ci95_low is not None for row in rows):
        columns.append(column("95 % interval", interval_text, lambda row: row.ci95_low))
    if rows and rows[0].choice is not None:
        heading = metric_name(rows[0].choice.split, rows[0].choice.metric)
        choices = [row.choice.mean if row.choice is not None else None for row in rows]
        columns.append((heading, [_Cell(number_text(mean), mean) for mean in choices]))
    columns.append(column("seeds", seeds_text, lambda row: row.seeds))
    costs: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
        ("trainable", "trainable_parameters", count_text),
        ("saved", "saved_bytes", bytes_text),
        ("training", "train_seconds", seconds_text),
        ("peak memory", "peak_memory_bytes", bytes_text),
        ("examples/s", "examples_per_second", count_text),
    )
    for heading, field, words in costs:
        values: list[float | None] = [getattr(row, field) for row in rows]
        columns.append((heading, [_Cell(words(value), value) for value in values]))
    return columns


def _strips(rows: Sequence[Row]) -> list[dict[str, float] | None]:
    """Where mean and interval of each row stand on a common scale, 0..100."""
    low, high = plot.metric_range(rows)

    def place(value: float) -> float:
        return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 2)

    strips: list[dict[str, float] | None] = []
    for row in rows:
        if row.mean is None:
            strips.append(None)
            continue
        ends = (row.mean, row.mean) if row.ci95_low is None else (row.ci95_low, row.ci95_high or row.mean)
        strips.append({"mean": place(row.mean), "low": place(ends[0]), "high": place(ends[1])})
    return strips


def _tradeoffs(rows: Sequence[Row]) -> list[Plate]:
    if len(rows) < 2:  # one point says nothing that the table does not
        return []
    drawn = (
        ("parameters", plot.quality_against_parameters(rows), "What is gained by training more parameters."),
        ("time", plot.quality_against_time(rows), "What is gained by training longer."),
    )
    return [Plate(name, Markup(svg), caption) for name, svg, caption in drawn if svg]


def _curves(trials: Sequence[Trial], metric: str) -> list[Plate]:
    train = plot.learning_curve(trials, quantity="train_loss", label="training loss")
    dev = plot.learning_curve(trials, quantity="dev_metric", label=metric_name("dev", metric))
    drawn = (("training loss", train), (metric_name("dev", metric), dev))
    return [Plate(name, Markup(svg), "") for name, svg in drawn if svg]


def _without_curve(trials: Sequence[Trial]) -> list[str]:
    """Methods of which no trial has a history."""
    return sorted({trial.method for trial in trials} - {trial.method for trial in trials if trial.curve})


def _answers(
    rows: Sequence[Row], trials: Sequence[Trial], *, labels: Sequence[str] | None, regression: bool
) -> list[Plate]:
    """A figure per method, best first, of what it answered: all its seeds together."""
    figures: list[Plate] = []
    for row in rows:
        items: list[Prediction] = [item for trial in trials if trial.method == row.method for item in trial.predictions]
        if not items or not (regression or labels):
            continue
        if regression:
            svg, caption = (
                plot.gold_against_predicted(items, method=row.method),
                "The dashed line is a perfect answer.",
            )
        else:
            svg = plot.confusion_matrix(items, labels=labels or (), method=row.method)
            caption = "Rows are the right label, columns the answer; the shade is the share of the row."
        figures.append(Plate(row.method, Markup(svg), f"{len(items):,} predictions. {caption}"))
    return figures
