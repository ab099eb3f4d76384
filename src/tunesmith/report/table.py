"""The leaderboard: one row per method, with what the seeds can and cannot tell apart."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import rich.box
import rich.table
from rich.text import Text
from scipy.stats import t as student_t

from tunesmith.report.trial import Trial

Standing = Literal["best", "within noise", "worse", "unknown"]

LOWER_IS_BETTER = frozenset({"loss", "validation_loss", "perplexity", "mae", "mse", "rmse"})


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        method: name of the method.
        metric: the metric that ranks the rows.
        split: the split on which it was measured.
        mean: over the seeds that have a value; None if none has.
        std: standard deviation over the seeds, with n-1; None with fewer than two values.
        ci95_low: lower end of the 95 % confidence interval of the mean (Student's t); None where `std` is.
        ci95_high: upper end of it.
        seeds: number of trials.
        missing_seeds: trials among them without a finite value of the metric; `mean` leaves them out.
        standing: "best"; "within noise" or "worse" as the interval overlaps the best one's or not; "unknown"
            where an interval is missing.
        trainable_parameters: largest over the seeds.
        total_parameters: largest over the seeds.
        saved_bytes: largest over the seeds.
        train_seconds: mean over the seeds.
        peak_memory_bytes: largest over the seeds.
        examples_per_second: mean over the seeds.
        other_means: `<split>_<metric>` to its mean over the seeds, for all but `metric` on `split`.
        choice: the same method on the split that rows are ranked by, where that is another one than `split`;
            `standing` is then that one's.
    """

    method: str
    metric: str
    split: str
    mean: float | None
    std: float | None
    ci95_low: float | None
    ci95_high: float | None
    seeds: int
    missing_seeds: int
    standing: Standing
    trainable_parameters: int | None
    total_parameters: int | None
    saved_bytes: int | None
    train_seconds: float | None
    peak_memory_bytes: int | None
    examples_per_second: float | None
    other_means: dict[str, float | None] = field(default_factory=dict)
    choice: "Row | None" = None


CSV_COLUMNS = (
    "method", "metric", "split", "mean", "std", "ci95_low", "ci95_high", "seeds", "trainable_parameters",
    "total_parameters", "saved_bytes", "train_seconds", "peak_memory_bytes", "examples_per_second",
    "standing", "missing_seeds",
)  # fmt: skip


def leaderboard(trials: Sequence[Trial], *, metric: str, split: str, chosen_on: str | None = None) -> list[Row]:
    """One row per method, best first, methods without a value last.

    The interval says how far the mean would move with other seeds; of other evaluation examples it knows
    nothing.

    Args:
        trials: of one comparison, in any order.
        metric: ranks the rows. Larger is better, except for the names in `LOWER_IS_BETTER`.
        split: where the `metric` that the rows show is read.
        chosen_on: where the `metric` that ranks them is read, `split` by default. A method that is chosen by the
            figure that is reported looks better than it is, so a report on "test" ranks by "dev".
    """
    ranked = _ranked(trials, metric=metric, split=chosen_on or split)
    if chosen_on is None or chosen_on == split:
        return ranked
    shown = {row.method: row for row in _ranked(trials, metric=metric, split=split)}
    return [replace(shown[row.method], standing=row.standing, choice=row) for row in ranked]


def _ranked(trials: Sequence[Trial], *, metric: str, split: str) -> list[Row]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.method, []).append(trial)
    rows = [_row(method, group, metric=metric, split=split) for method, group in groups.items()]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    # Equal means: the method that trains less stands first.
    rows.sort(
        key=lambda row: (
            row.mean is None,
            sign * (row.mean or 0.0),
            row.trainable_parameters if row.trainable_parameters is not None else float("inf"),
            row.method,
        )
    )
    return [replace(row, standing=_standing(row, rows[0])) for row in rows]


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV: `CSV_COLUMNS`, then the other means by name; an absent value is an empty field."""
    others = other_columns(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *others])
    for row in rows:
        values = [getattr(row, name) for name in CSV_COLUMNS]
        writer.writerow([*values, *(row.other_means.get(name) for name in others)])
    return stream.getvalue()


def console_table(rows: Sequence[Row]) -> rich.table.Table:
    """The rows as a table that fits a terminal of 80 columns; the CSV file and the report hold the rest."""
    name = metric_name(rows[0].split, rows[0].metric) if rows else "metric"
    choices = [row.choice for row in rows if row.choice is not None]
    intervals = any(row.ci95_low is not None for row in rows)
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="± is half the 95 % interval of the mean over seeds" if intervals else None,
        caption_justify="left",
    )
    table.add_column("method", overflow="fold")
    chosen = [choices[0].split] if choices else []
    for heading in (*chosen, name, "seeds", "trains", "saved", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        half = None if row.ci95_high is None or row.mean is None else row.ci95_high - row.mean
        cells = (
            row.method,
            *([] if row.choice is None else [number_text(row.choice.mean)]),
            number_text(row.mean) + ("" if half is None else f" ±{number_text(half)}"),
            seeds_text(row),
            count_text(row.trainable_parameters),
            bytes_text(row.saved_bytes),
            seconds_text(row.train_seconds),
            row.standing if row.standing in ("best", "within noise") else "",
        )
        # Text, not str: a name with square brackets must not be read as rich markup.
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row.standing == "best" else None)
    return table


def verdict(rows: Sequence[Row]) -> str:
    """Who is best, by how much, whether the seeds can tell, what does as well for less, and what that is worth."""
    if rows and rows[0].choice is not None:
        shown = rows[0]
        chosen = verdict([row.choice for row in rows if row.choice is not None])
        name = metric_name(shown.split, shown.metric)
        interval = "" if shown.ci95_low is None else f" (95 % interval {interval_text(shown)})"
        return f"{chosen} {shown.method} reaches {number_text(shown.mean)} {name}{interval}."
    if not rows or rows[0].mean is None:
        return "No trial has a value to compare."
    best = rows[0]
    name, value = metric_name(best.split, best.metric), number_text(best.mean)
    rivals = [row for row in rows[1:] if row.mean is not None]
    if not rivals:
        sentence = f"{best.method} reaches {value} {name}"
        if best.ci95_low is None:
            return f"{sentence} with one seed; more seeds would show how far that moves by chance."
        return f"{sentence} (95 % interval {interval_text(best)} over {best.seeds} seeds)."
    second = rivals[0]
    gap = abs((best.mean or 0.0) - (second.mean or 0.0))
    sentence = f"{best.method} is best with {value} {name}, {number_text(gap)} ahead of {second.method}"
    if number_text(gap) == number_text(0.0):
        sentence = f"{best.method} and {second.method} are level with {value} {name}"
    match second.standing:
        case "within noise":
            sentence += ", a difference within the noise between seeds"
        case "worse":
            sentence += ", more than the noise between seeds"
        case _:
            return f"{sentence}; whether that is more than noise cannot be told without more seeds."
    contenders = [row for row in rows if row.standing in ("best", "within noise")]
    cheapest = min(contenders, key=_price)
    if len(contenders) == 1:
        return f"{sentence}."
    if cheapest is best:
        return f"{sentence}; no method within noise of it trains fewer parameters."
    return (
        f"{sentence}; the cheapest method within noise is {cheapest.method} ({number_text(cheapest.mean)}), "
        f"training {count_text(cheapest.trainable_parameters)} parameters "
        f"instead of {count_text(best.trainable_parameters)}."
    )


def other_columns(rows: Sequence[Row]) -> list[str]:
    """The names in any row's `other_means`, sorted."""
    return sorted({name for row in rows for name in row.other_means})


def metric_name(split: str, metric: str) -> str:
    """Split and metric in plain words, as in "dev macro f1"."""
    return f"{split} {metric.replace('_', ' ')}"


def number_text(value: float | None) -> str:
    """A metric's value with three decimals."""
    return "–" if value is None else f"{value:.3f}"


def interval_text(row: Row) -> str:
    """The 95 % interval of a row, as in "0.861 to 0.874"."""
    return "–" if row.ci95_low is None else f"{number_text(row.ci95_low)} to {number_text(row.ci95_high)}"


def seeds_text(row: Row) -> str:
    """The number of seeds, and how many of them have a value if not all."""
    return f"{row.seeds - row.missing_seeds} of {row.seeds}" if row.missing_seeds else str(row.seeds)


def count_text(value: float | None) -> str:
    """A count in three figures, as in "85.1 M"."""
    return "–" if value is None else _scaled(value, ("", " k", " M", " G", " T"))


def bytes_text(value: float | None) -> str:
    """A size in three figures and powers of 1000, as in "1.21 MB"."""
    return "–" if value is None else _scaled(value, (" B", " kB", " MB", " GB", " TB"))


def seconds_text(value: float | None) -> str:
    """A duration, as in "0.02 s", "8.4 s", "3 min 05 s" or "2 h 10 min"."""
    if value is None:
        return "–"
    if value < 59.95:
        return f"{value:.2g} s" if value < 9.95 else f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _row(method: str, trials: list[Trial], *, metric: str, split: str) -> Row:
    values = [value for trial in trials if (value := trial.score(split, metric)) is not None]
    mean = statistics.fmean(values) if values else None
    std = statistics.stdev(values) if len(values) > 1 else None
    low = high = None
    if mean is not None and std is not None:
        half = float(student_t.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
        low, high = mean - half, mean + half
    names = {(place, name) for trial in trials for place in trial.splits() for name in trial.scores(place)}
    return Row(
        method=method,
        metric=metric,
        split=split,
        mean=mean,
        std=std,
        ci95_low=low,
        ci95_high=high,
        seeds=len(trials),
        missing_seeds=len(trials) - len(values),
        standing="unknown",
        trainable_parameters=_largest(trials, "trainable_parameters"),
        total_parameters=_largest(trials, "total_parameters"),
        saved_bytes=_largest(trials, "saved_bytes"),
        train_seconds=_mean([trial.cost("train_seconds") for trial in trials]),
        peak_memory_bytes=_largest(trials, "peak_memory_bytes"),
        examples_per_second=_mean([trial.cost("examples_per_second") for trial in trials]),
        other_means={
            f"{place}_{name}": _mean([trial.score(place, name) for trial in trials])
            for place, name in sorted(names - {(split, metric)})
        },
    )


def _standing(row: Row, best: Row) -> Standing:
    if row is best and row.mean is not None:
        return "best"
    if row.ci95_low is None or row.ci95_high is None or best.ci95_low is None or best.ci95_high is None:
        return "unknown"
    overlap = row.ci95_low <= best.ci95_high and best.ci95_low <= row.ci95_high
    return "within noise" if overlap else "worse"


def _price(row: Row) -> tuple[float, float]:
    """What a method costs, for `min`: trainable parameters, then training time; unknown costs most."""
    parameters = float("inf") if row.trainable_parameters is None else row.trainable_parameters
    return parameters, float("inf") if row.train_seconds is None else row.train_seconds


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _largest(trials: list[Trial], name: str) -> int | None:
    return max((round(value) for trial in trials if (value := trial.cost(name)) is not None), default=None)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}{units[-1]}"
