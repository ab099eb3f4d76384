import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from tunesmith.base.errors import DataError
from tunesmith.text import docstrings
from tunesmith.text.docstrings import AREAS, standard_library_docstrings


@pytest.fixture(scope="module")
def rows():
    return standard_library_docstrings()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of one's own: a function that writes a module into it."""
    monkeypatch.setattr(docstrings.sysconfig, "get_path", lambda name: str(tmp_path))

    def write(module, source):
        path = tmp_path / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")

    return write


def test_a_module_belongs_to_one_area():
    modules = [module for names in AREAS.values() for module in names.split()]
    assert len(AREAS) == 7
    assert len(modules) == len(set(modules))


def test_the_rows_make_a_real_task(rows):
    assert 3000 < len(rows.texts) == len(rows.labels) <= 4000
    counts = Counter(rows.labels)
    assert set(counts) == set(AREAS)
    assert 0.2 < max(counts.values()) / len(rows.texts) < 0.45
    assert min(counts.values()) > 100


def test_texts_are_clean_and_do_not_name_their_label(rows):
    assert len(set(rows.texts)) == len(rows.texts)
    for text, label in zip(rows.texts, rows.labels, strict=True):
        assert text == " ".join(text.split())
        assert len(text.split()) >= 4
        assert label.lower() not in text.lower()


def test_the_rows_are_the_same_in_another_process(rows):
    code = (
        "from tunesmith.text.docstrings import standard_library_docstrings as read;"
        "import hashlib; rows = read();"
        "print(hashlib.sha256(repr((rows.texts, rows.labels)).encode()).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
    ).stdout
    assert printed.strip() == hashlib.sha256(repr((rows.texts, rows.labels)).encode()).hexdigest()


def test_first_paragraphs_of_public_names_only(library):
    library(
        "heapq",
        '"""The module about\n  heaps, shortly.\n\nMore of it in a second paragraph."""\n'
        'def push():\n    """Push one\titem on."""\n    def inner():\n        """Inner one of four."""\n'
        'def _pop():\n    """Private things are left out."""\n'
        'class Heap:\n    """Three short words"""\n'
        '    async def wait(self):\n        """Wait for an item."""\n'
        'def example():\n    """>>> this is an example"""\n',
    )
    rows = standard_library_docstrings()
    assert sorted(rows.texts) == [
        "Inner one of four.",
        "Push one item on.",
        "The module about heaps, shortly.",
        "Wait for an item.",
    ]
    assert set(rows.labels) == {"data types and maths"}


def test_duplicates_ambiguous_texts_and_leaks_are_left_out(library):
    library("heapq", '"""Taken once, and kept."""\ndef f():\n    """Said in two areas."""\n')
    library("bisect", '"""Taken once, and kept."""')
    library("socket", '"""Said in two areas."""\ndef f():\n    """All of Network and Internet here."""\n')
    assert standard_library_docstrings().texts == ["Taken once, and kept."]


def test_tests_broken_files_and_unknown_modules_are_skipped(library):
    library("json", '"""The one that stays."""')
    library("json/tests/test_json", '"""A test of the json."""')
    library("json/broken", '"""Broken in some way."""\ndef (')
    library("somebody", '"""Not of the library."""')
    library("json/escape", '"""Also one that stays."""\npattern = "\\d"\n')
    assert standard_library_docstrings().texts == ["The one that stays.", "Also one that stays."]


def test_nothing_is_imported(library, tmp_path):
    library("json", f'"""The one that stays."""\nopen({str(tmp_path / "ran")!r}, "w").close()\n')
    standard_library_docstrings()
    assert not (tmp_path / "ran").exists()


def test_the_limit_takes_a_random_part_in_order(library):
    library("heapq", "".join(f'def f{i:03}():\n    """Row number {i:03} here."""\n' for i in range(100)))
    every, some, other = (
        standard_library_docstrings(limit=limit, seed=seed) for limit, seed in ((100, 0), (10, 0), (10, 1))
    )
    assert len(every.texts) == 100
    assert len(some.texts) == 10
    assert some.texts == sorted(some.texts)
    assert set(some.texts) != set(other.texts)
    assert some == standard_library_docstrings(limit=10, seed=0)


def test_a_python_without_sources(library):
    with pytest.raises(DataError, match="holds no Python sources with docstrings"):
        standard_library_docstrings()
