import csv
import io
import math
from dataclasses import replace

import pytest
import rich.console

from tunesmith.report.table import (
    CSV_COLUMNS,
    bytes_text,
    console_table,
    count_text,
    csv_text,
    leaderboard,
    seconds_text,
    verdict,
)
from tunesmith.report.trial import Trial


def trial(method, seed, accuracy, **costs):
    return Trial(method, seed, {"dev": {"accuracy": accuracy, "f1": 0.5 + seed / 10}, **costs})


def board(**methods):
    trials = [
        trial(name, seed, value, trainable_parameters=costs, train_seconds=10.0 * (seed + 1))
        for name, (costs, values) in methods.items()
        for seed, value in enumerate(values)
    ]
    return leaderboard(trials, metric="accuracy", split="dev")


def test_mean_and_interval_are_those_of_students_t():
    (row,) = board(lora=(10, [0.70, 0.72, 0.74]))
    assert row.mean == pytest.approx(0.72)
    assert row.std == pytest.approx(0.02)
    # 4.302653 is the tabulated 97.5 % point of t with two degrees of freedom.
    assert row.ci95_high - row.mean == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert row.mean - row.ci95_low == pytest.approx(row.ci95_high - row.mean)
    assert row.train_seconds == pytest.approx(20.0)
    assert row.other_means == {"dev_f1": pytest.approx(0.6)}
    assert row.seeds == 3


def test_one_seed_has_no_interval_and_an_unknown_rival():
    rows = board(lora=(10, [0.7]), bitfit=(5, [0.8]))
    assert [row.method for row in rows] == ["bitfit", "lora"]
    assert rows[0].std is rows[0].ci95_low is rows[0].ci95_high is None
    assert [row.standing for row in rows] == ["best", "unknown"]


def test_standing_follows_the_overlap_of_intervals():
    rows = board(full=(100, [0.80, 0.81, 0.82]), lora=(10, [0.79, 0.80, 0.81]), probe=(1, [0.50, 0.51, 0.52]))
    assert [(row.method, row.standing) for row in rows] == [
        ("full", "best"), ("lora", "within noise"), ("probe", "worse"),
    ]  # fmt: skip


def test_missing_values_stand_last_and_are_counted():
    rows = board(lora=(10, [float("nan"), 0.6, 0.62]), broken=(10, [float("nan")]), full=(10, [0.5, 0.5]))
    assert [row.method for row in rows] == ["lora", "full", "broken"]
    assert [row.missing_seeds for row in rows] == [1, 0, 1]
    assert rows[0].mean == pytest.approx(0.61)
    assert rows[2].mean is None
    assert rows[2].standing == "unknown"


def test_losses_rank_the_other_way_round():
    trials = [Trial(name, 0, {"dev": {"loss": loss}}) for name, loss in (("none", None), ("a", 2.0), ("b", 1.0))]
    assert [row.method for row in leaderboard(trials, metric="loss", split="dev")] == ["b", "a", "none"]


def test_equal_means_put_the_smaller_method_first():
    assert [row.method for row in board(full=(100, [0.5]), probe=(1, [0.5]))] == ["probe", "full"]


def chosen_on_dev(**methods):
    trials = [
        Trial(name, seed, {"dev": {"accuracy": dev}, "test": {"accuracy": test}, "trainable_parameters": 9})
        for name, values in methods.items()
        for seed, (dev, test) in enumerate(values)
    ]
    return leaderboard(trials, metric="accuracy", split="test", chosen_on="dev")


def test_what_is_reported_has_no_say_in_the_choice():
    rows = chosen_on_dev(lucky=[(0.700, 0.95), (0.702, 0.97)], good=[(0.900, 0.80), (0.902, 0.82)])
    assert [(row.method, row.standing, row.split) for row in rows] == [
        ("good", "best", "test"), ("lucky", "worse", "test"),
    ]  # fmt: skip
    assert [row.mean for row in rows] == [pytest.approx(0.81), pytest.approx(0.96)]
    assert [row.choice.mean for row in rows] == [pytest.approx(0.901), pytest.approx(0.701)]
    assert verdict(rows) == (
        "good is best with 0.901 dev accuracy, 0.200 ahead of lucky, more than the noise between seeds. "
        "good reaches 0.810 test accuracy (95 % interval 0.683 to 0.937)."
    )
    (line, _) = csv.DictReader(io.StringIO(csv_text(rows)))
    assert (line["method"], line["split"], float(line["mean"])) == ("good", "test", rows[0].mean)
    assert float(line["dev_accuracy"]) == rows[0].choice.mean
    console = rich.console.Console(width=80, file=io.StringIO(), color_system=None)
    console.print(console_table(rows))
    text = console.file.getvalue()
    assert "0.901" in text
    assert "0.810 ±0.127" in text
    assert "…" not in text


def test_choosing_on_the_split_that_is_reported_changes_nothing():
    trials = [trial(name, seed, seed / 10) for name in "ab" for seed in range(2)]
    plain = leaderboard(trials, metric="accuracy", split="dev")
    assert leaderboard(trials, metric="accuracy", split="dev", chosen_on="dev") == plain
    assert all(row.choice is None for row in plain)


def test_csv_has_stable_columns_and_gives_its_numbers_back():
    rows = board(lora=(10, [0.70, 0.72]), bitfit=(5, [0.6]))
    lines = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert list(lines[0]) == [*CSV_COLUMNS, "dev_f1"]
    assert [line["method"] for line in lines] == ["lora", "bitfit"]
    assert float(lines[0]["mean"]) == rows[0].mean
    assert float(lines[0]["ci95_low"]) == rows[0].ci95_low
    assert lines[0]["trainable_parameters"] == "10"
    assert lines[1]["std"] == ""
    assert lines[1]["saved_bytes"] == ""


def test_console_table_fits_80_columns_and_shows_brackets():
    rows = board(linear_probe=(2695, [0.70, 0.71, 0.72]), full=(22_700_000, [0.70, 0.72, 0.73]))
    rows = [replace(rows[0], method="[red]a"), *rows[1:]]
    console = rich.console.Console(width=80, file=io.StringIO(), color_system=None)
    console.print(console_table(rows))
    text = console.file.getvalue()
    assert "[red]a" in text
    assert "0.717 ±0.038" in text
    assert "within noise" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"lora": (10, [0.7])}, "lora reaches 0.700 dev accuracy with one seed"),
        ({"lora": (10, [0.7, 0.72])}, "95 % interval 0.583 to 0.837 over 2 seeds"),
        ({"lora": (10, [0.7]), "full": (99, [0.6])}, "0.100 ahead of full; whether that is more than noise"),
        ({"lora": (10, [0.70, 0.701]), "full": (99, [0.5, 0.501])}, "more than the noise between seeds."),
        (
            {"full": (99_000, [0.70, 0.72]), "lora": (10, [0.69, 0.71])},
            "the cheapest method within noise is lora (0.700), training 10 parameters instead of 99 k.",
        ),
        (
            {"lora": (10, [0.70, 0.72]), "full": (99, [0.69, 0.71])},
            "no method within noise of it trains fewer",
        ),
        ({"lora": (10, [0.7, 0.7]), "full": (99, [0.7, 0.7])}, "lora and full are level with 0.700"),
        ({"lora": (10, [float("nan")])}, "No trial has a value"),
    ],
)
def test_verdict_says_what_the_seeds_can_tell(methods, words):
    assert words in verdict(board(**methods))


def test_quantities_read_well():
    assert [count_text(n) for n in (0, 999, 1000, 999_499, 999_500, 85_123_456, None)] == [
        "0", "999", "1 k", "999 k", "1 M", "85.1 M", "–",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (12, 1_210_000)] == ["12 B", "1.21 MB"]
    assert [seconds_text(s) for s in (0.02, 8.44, 42.0, 59.99, 185, 7800)] == [
        "0.02 s", "8.4 s", "42 s", "1 min 00 s", "3 min 05 s", "2 h 10 min",
    ]  # fmt: skip
