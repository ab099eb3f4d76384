import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import DataError, SettingError
from tunesmith.text.split import split_off

LABELS = st.lists(st.sampled_from("aaaaabbbcd") | st.integers(0, 30), min_size=2, max_size=120)
FRACTIONS = st.floats(0.01, 0.99)


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**40))
def test_every_row_is_in_one_part_in_file_order(labels, fraction, seed):
    split = split_off(labels, size=len(labels), fraction=fraction, seed=seed)
    assert sorted(split.train + split.dev) == list(range(len(labels)))
    assert split.train == sorted(split.train)
    assert split.dev == sorted(split.dev)
    assert split.train
    assert split.dev
    assert all(type(row) is int for row in split.train + split.dev)


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**40))
def test_classes_keep_their_share_and_the_total_is_exact(labels, fraction, seed):
    split = split_off(labels, size=len(labels), fraction=fraction, seed=seed)
    sizes, held = Counter(labels), Counter(labels[row] for row in split.dev)
    room = sum(n - 1 if n > 1 else 1 for n in sizes.values())
    total = min(max(round(len(labels) * fraction), 1), room, len(labels) - 1)
    assert len(split.dev) == total
    assert all(held[label] < n for label, n in sizes.items() if n > 1)
    if all(n * (1 - total / len(labels)) >= 1 for n in sizes.values() if n > 1):  # nobody is short of train rows
        assert all(abs(held[label] - n * total / len(labels)) < 1 for label, n in sizes.items())


def test_two_even_classes_give_exactly_their_share():
    labels = ["a"] * 70 + ["b"] * 30
    split = split_off(labels, size=100, fraction=0.1, seed=0)
    assert Counter(labels[row] for row in split.dev) == {"a": 7, "b": 3}


def test_largest_remainders_decide():
    labels = ["a"] * 17 + ["b"] * 14 + ["c"] * 9  # shares of 10: 4.25, 3.5, 2.25
    split = split_off(labels, size=40, fraction=0.25, seed=3)
    assert Counter(labels[row] for row in split.dev) == {"a": 4, "b": 4, "c": 2}


def test_classes_that_keep_a_row_limit_the_dev_part():
    split = split_off(["a", "a", "b", "b", "c", "c"], size=6, fraction=0.9, seed=0)
    assert len(split.dev) == 3


@pytest.mark.parametrize("labels", [None, ["a", "b"] * 50])
def test_the_seed_and_nothing_else_decides(labels):
    first, again, other = (split_off(labels, size=100, fraction=0.2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_without_labels_the_dev_part_is_spread_over_the_file():
    dev = split_off(None, size=1000, fraction=0.1, seed=0).dev
    assert len(dev) == 100
    assert dev[0] < 100
    assert dev[-1] >= 900


def test_equal_remainders_are_drawn_by_lot():
    labels = [row // 2 for row in range(200)]  # 100 classes of 2, of which 20 give a row
    dev = split_off(labels, size=200, fraction=0.1, seed=0).dev
    assert len({labels[row] for row in dev}) == 20
    assert max(labels[row] for row in dev) > 50


def test_the_hash_seed_of_python_does_not_matter():
    code = (
        "from tunesmith.text.split import split_off;"
        "print(split_off([f'label {i % 7}' for i in range(60)], size=60, fraction=0.3, seed=5).dev)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_rows(size):
    with pytest.raises(DataError, match=f"of {size} rows: give at least 2"):
        split_off(None, size=size, fraction=0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_its_range(fraction):
    with pytest.raises(SettingError, match="^fraction: must be above 0 and below 1, got "):
        split_off(None, size=10, fraction=fraction, seed=0)
