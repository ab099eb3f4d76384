import builtins
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunesmith.base.errors import DataError
from tunesmith.text import table as module
from tunesmith.text.table import Table, read_table

CSV = "text,label\ngood film,1\nbad film,0\n"
JSONL = '{"text": "good film", "label": 1}\n{"text": "bad film", "label": 0}\n'
CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file into the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, content):
        data = content.encode("utf-8") if isinstance(content, str) else content
        with open(name, "wb") as stream:
            stream.write(gzip.compress(data, mtime=0) if name.endswith(".gz") and content else data)
        return name

    return write_file


def parquet_bytes(table):
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def message(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "None" not in text
    return text


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.csv", CSV, ["1", "0"]),
        ("a.CSV", CSV.replace("\n", "\r\n"), ["1", "0"]),
        ("a.csv.gz", CSV, ["1", "0"]),
        ("a.tsv", CSV.replace(",", "\t"), ["1", "0"]),
        ("a.tsv.gz", CSV.replace(",", "\t"), ["1", "0"]),
        ("a.jsonl", JSONL, [1, 0]),
        ("a.ndjson", JSONL, [1, 0]),
        ("a.json", JSONL.rstrip(), [1, 0]),
        ("a.jsonl.gz", JSONL, [1, 0]),
        ("a.json.gz", JSONL.replace("\n", "\r\n"), [1, 0]),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_text_format(write, name, content, labels, mark):
    read = read_table(write(name, mark + content.encode()))
    assert read.columns == {"text": ["good film", "bad film"], "label": labels}
    assert read.source == name
    first = 1 if "js" in name else 2
    assert read.lines == [first, first + 1]
    assert read.where(1) == f"{name} line {first + 1}"
    assert len(read) == 2


def test_parquet_with_nested_types(write):
    rows = {
        "tokens": [["a", "b"], [], None],
        "label": [1, None, 3],
        "answers": [{"start": [1]}, None, {"start": []}],
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    read = read_table(write("a.parquet", parquet_bytes(pa.table(rows))))
    assert read.columns == rows | {"kind": ["x", "y", "x"]}
    assert read.where(2) == "a.parquet row 3"


def test_select_keeps_the_place_in_the_file(write):
    part = read_table(write("a.parquet", parquet_bytes(pa.table({"x": list("abcd")})))).select([3, 1])
    assert part.columns == {"x": ["d", "b"]}
    assert [part.where(i) for i in range(2)] == ["a.parquet row 4", "a.parquet row 2"]
    assert len(part.select([])) == 0


def test_a_table_is_never_ragged():
    with pytest.raises(AssertionError, match="ragged"):
        Table({"a": [1], "b": []}, "x.csv", [1])


def test_quoted_line_ends_count_as_lines(write):
    read = read_table(write("a.csv", 'text,label\n"one\ntwo, ""three""",1\n\nfour,2\n'))
    assert read.columns == {"text": ['one\ntwo, "three"', "four"], "label": ["1", "2"]}
    assert read.lines == [2, 5]


def test_empty_cells_and_missing_keys_are_none(write):
    assert read_table(write("a.csv", 'a,b\n,1\n2,""\n,\n')).columns == {
        "a": [None, "2", None],
        "b": ["1", None, None],
    }
    assert read_table(write("a.csv", 'a\n""\n\n1\n')).columns == {"a": [None, "1"]}
    read = read_table(write("a.jsonl", '{"a": 1}\n\n  \n{"b": null, "c": [1]}\n{}\n'))
    assert read.columns == {"a": [1, None, None], "b": [None, None, None], "c": [None, [1], None]}
    assert read.lines == [1, 4, 5]


def test_header_names_lose_their_spaces_and_cells_keep_theirs(write):
    assert read_table(write("a.csv", "a, b\n1, 2\n   \n")).columns == {"a": ["1"], "b": [" 2"]}


def test_only_line_feeds_end_a_line(write):
    text = "one\u2028two\x85three\x0bfour"
    assert read_table(write("a.csv", f"text,label\n{text},1\n")).columns["text"] == [text]
    assert read_table(write("a.jsonl", f'{{"text": "{text[:-5]}"}}\n')).columns["text"] == [text[:-5]]


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), tabs=st.booleans())
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, tabs):
    # with as many tabs as line ends in a row each of its lines looks like a row: see the tests of bare marks below
    assume(not tabs or not any("\t" in a + b and "\n" in a + b for a, b in rows))
    path = tmp_path_factory.mktemp("csv") / ("a.tsv" if tabs else "a.csv")
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter="\t" if tabs else ",").writerows([("a", "b"), *rows])
    read = read_table(path)
    assert list(zip(read.columns["a"], read.columns["b"], strict=True)) == [(a or None, b or None) for a, b in rows]
    assert read.source == str(path)


BARE = {
    "never closed": ['"Hello he said', "fine"],
    "closed before the end": ['"Hello" he said', "fine"],
    "closed rows later": ['"Hello he said', "fine", 'and "left"', 'or went"'],
    "doubled": ['""Hello', 'he said ""'],
    "alone": ['"', "fine"],
    "in the middle": ['he said "Hello', 'and "left"'],
    "among whole ones": ['"Hello"', '"Hello'],
}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bare_quotation_marks_of_a_tsv_file_are_plain_characters(write, name, end):
    texts = BARE[name]
    rows = ["text\tlabel", *(f"{text}\t{i}" for i, text in enumerate(texts))]
    read = read_table(write("a.tsv", end.join(rows) + end))
    assert read.columns == {"text": texts, "label": [str(i) for i in range(len(texts))]}
    assert read.lines == [i + 2 for i in range(len(texts))]


@pytest.mark.parametrize("name", BARE)
def test_bare_quotation_marks_in_the_last_column_and_in_pairs(write, name):
    texts = BARE[name]
    read = read_table(write("a.tsv", "a\tb\tlabel\n" + "".join(f"{text}\t{text}\tx\n" for text in texts)))
    assert read.columns == {"a": texts, "b": texts, "label": ["x"] * len(texts)}
    read = read_table(write("a.tsv", "label\ttext\n" + "".join(f"x\t{text}\n" for text in texts)))
    assert read.columns["text"] == texts


def test_quoted_cells_of_a_tsv_file_are_still_quoted(write):
    read = read_table(write("a.tsv", '"text"\t"label"\n"one\ttwo"\t1\n"three\n""four"""\t2\n"five"\t"3"\n'))
    assert read.columns == {"text": ["one\ttwo", 'three\n"four"', "five"], "label": ["1", "2", "3"]}
    assert read.lines == [2, 3, 5]


def test_a_tsv_file_that_fits_neither_way_is_refused_as_a_quoted_one(write):
    said = message(read_table, write("a.tsv", 'a\tb\n1\t2\n"x\ty\tz\n'))
    assert said.startswith("a.tsv line 3: the row that begins here is broken (unexpected end")
    assert message(read_table, write("a.tsv", 'a\tb\n"1\n"\t2\n1\n')).startswith("a.tsv line 4: has 1 cells")


@given(
    rows=st.lists(
        st.dictionaries(CELLS.filter(bool), st.none() | st.integers() | CELLS | st.lists(CELLS), max_size=3),
        min_size=1,
        max_size=8,
    ).filter(any),
    plain=st.booleans(),
)
def test_what_the_json_module_writes_is_read_back(tmp_path_factory, rows, plain):
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    lines = [json.dumps(row, ensure_ascii=plain) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    columns = read_table(path).columns
    assert set(columns) == {key for row in rows for key in row}
    assert all(cell == rows[i].get(name) for name, cells in columns.items() for i, cell in enumerate(cells))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "a.csv: is empty"),
        ("a.csv", "\n\n", "a.csv: is empty"),
        ("a.csv", b"\xef\xbb\xbf", "a.csv: is empty"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "a.csv.gz: is empty"),
        ("a.jsonl", "\n \n", "a.jsonl: holds no rows"),
        ("a.jsonl", "{}\n{}\n", "a.jsonl: holds no rows"),
        ("a.parquet", b"", "a.parquet: is empty"),
        ("a.csv", "text,label\n\n", "a.csv: has a header but no rows"),
        ("a.csv", "a,b\n1,2\n\n1,2,3\n", "a.csv line 4: has 3 cells where the header has 2: "),
        ("a.csv", "a,b\n1,2\n1\n", "a.csv line 3: has 1 cells where the header has 2: "),
        ("a.csv", "a,b,a\n1,2,3\n", "a.csv line 1: the column name 'a' occurs twice"),
        ("a.csv", "\n,b\n1,2\n", "a.csv line 2: column 1 has no name"),
        ("a.csv", "a, \n1,2\n", "a.csv line 1: column 2 has no name"),
        (
            "a.csv",
            'a,b\n1,2\n"1,2\n3,4\n',
            "a.csv line 3: the row that begins here is broken (unexpected end",
        ),
        ("a.csv", 'a,b\n1,2\n"x" y,2\n', "a.csv line 3: the row that begins here is broken (',' expected"),
        ("a.csv", "a,b\r1,2\r", "a.csv line 1: the row that begins here is broken (new-line character"),
        (
            "a.csv",
            "a,b\n\u00e9\n".encode("latin-1"),
            "a.csv line 2: is not UTF-8 text (byte 0xe9 at offset 4)",
        ),
        ("a.csv", CSV.encode("utf-16"), "a.csv line 1: is UTF-16 text"),
        ("a.csv", CSV.encode("utf-16-le"), "a.csv line 1: holds a NUL byte at offset 1"),
        ("a.csv", b"PK\x03\x04\x14\0\0", "a.csv line 1: holds a NUL byte at offset 5"),
        ("a.csv", b"a,b\n1,2\n\0", "a.csv line 3: holds a NUL byte at offset 8"),
        ("a.jsonl", b"\x89PNG\r\n", "a.jsonl line 1: is not UTF-8 text (byte 0x89 at offset 0)"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "a.jsonl line 2: is not valid JSON (Expecting value at column 7)"),
        ("a.jsonl", '{\n  "a": 1\n}\n', "a.jsonl line 1: is not valid JSON"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', "a.jsonl line 1: is not valid JSON (Extra data at column 10)"),
        ("a.json", '[{"a": 1}]\n', "a.json line 1: is a JSON list, not an object"),
        ("a.jsonl", '{"a": 1}\n"b"\n', "a.jsonl line 2: is a JSON str, not an object"),
        ("a.jsonl", '{"a": NaN}\n', "a.jsonl line 1: is not usable JSON (NaN is not a JSON value)"),
        ("a.jsonl", '{"a": [-Infinity]}\n', "a.jsonl line 1: is not usable JSON (-Infinity is not"),
        ("a.jsonl", '{"a": 1e999}\n', "a.jsonl line 1: is not usable JSON (the number 1e999 is too large)"),
        ("a.jsonl", '{"a": 1' + "0" * 5000 + "}\n", "a.jsonl line 1: is not usable JSON (Exceeds the limit"),
        (
            "a.jsonl",
            '{"a": 1, "b": 2, "a": 3}',
            "a.jsonl line 1: is not usable JSON (the key 'a' occurs twice)",
        ),
        ("a.jsonl", '{"": 1}', "a.jsonl line 1: column 1 has no name"),
        ("a.jsonl", '{"a": "\\uD800"}', "a.jsonl line 1: holds half a surrogate pair"),
        ("a.jsonl", '{"a": ' + "[" * 100000 + "]" * 100000 + "}", "a.jsonl line 1: is nested too deeply"),
        (
            "a.csv.gz",
            gzip.compress(os.urandom(999).hex().encode(), mtime=0)[:500],
            "a.csv.gz: is a truncated or damaged gz",
        ),
        ("a.csv.gz", CSV.encode(), "a.csv.gz: is a truncated or damaged gzip file (Not a gzipped file"),
        (
            "a.csv.gz",
            gzip.compress(CSV.encode(), mtime=0)[:12] + b"\xff" * 20,
            "a.csv.gz: is a truncated or damaged gz",
        ),
        ("a.xlsx", "x", "a.xlsx: has an extension that is not supported: use one of .csv"),
        ("a.parquet.gz", "x", "a.parquet.gz: has an extension that is not supported"),
        ("a", "x", "a: has an extension that is not supported"),
        ("a.parquet", "text,label\n", "a.parquet: is not a readable Parquet file ("),
        (
            "a.parquet",
            parquet_bytes(pa.table({"x": [1] * 999}))[:-20],
            "a.parquet: is not a readable Parquet",
        ),
        ("a.parquet", b"PAR1" + b"\xff" * 400 + b"PAR1", "a.parquet: is not a readable Parquet"),
        ("a.parquet", parquet_bytes(pa.table({"x": pa.array([], pa.int32())})), "a.parquet: holds no rows"),
        (
            "a.parquet",
            parquet_bytes(pa.table([[1], [2]], names=["x", "x"])),
            "a.parquet: the column name 'x' occ",
        ),
        ("a.parquet", parquet_bytes(pa.table([[1]], names=[""])), "a.parquet: column 1 has no name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, name, content, said):
    with open(write(name, ""), "wb") as stream:  # as it is, not compressed
        stream.write(content.encode() if isinstance(content, str) else content)
    assert message(read_table, name).startswith(said)


def test_a_null_is_not_an_object(write):
    with pytest.raises(DataError, match="is a JSON NoneType, not an object"):
        read_table(write("a.jsonl", "null\n"))


def test_a_line_without_end_is_not_read_whole(write):
    name = write("a.jsonl.gz", b'{"text": "' + b"a" * 100_000_000)
    tracemalloc.start()
    said = message(read_table, name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said.startswith(f"{name} line 1: is longer than 16777216 bytes")
    assert peak < 60_000_000


def test_an_overlong_cell_and_the_limit_of_the_process(write, monkeypatch):
    monkeypatch.setattr(module, "MAX_CELL_CHARACTERS", 20)
    before = csv.field_size_limit()
    said = message(read_table, write("a.csv", 'a,b\n1,2\n"' + "long\n" * 10 + '",1\n'))
    assert said.startswith("a.csv line 3: the row that begins here is broken (field larger than field limit (20))")
    assert csv.field_size_limit() == before


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_itself(write):
    text = "long " * 40_000
    assert read_table(write("a.csv", f"text,label\n{text},1\n")).columns["text"] == [text]


def test_ids_as_keys_are_refused(write):
    lines = "".join(json.dumps({f"id{i}": "text"}) + "\n" for i in range(1002))
    assert message(read_table, write("a.jsonl", lines)).startswith("a.jsonl line 1001: more than 1000 different")


def test_a_missing_file_a_folder_and_a_file_that_may_not_be_read(write, monkeypatch):
    assert message(read_table, "absent.csv") == "absent.csv: no such file or folder: check the path"
    write("a.csv", CSV)
    assert message(read_table, "a.csv/b.csv").startswith("a.csv/b.csv: no such file or folder")
    os.mkdir("b.csv")
    assert message(read_table, "b.csv").startswith("b.csv: is a folder where a file is needed")

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    assert message(read_table, "a.csv").startswith("a.csv: cannot be read (Permission denied)")


def test_nothing_imports_torch():
    code = (
        "import sys, tunesmith.text.table, tunesmith.text.split, tunesmith.text.metrics;"
        "import tunesmith.text.docstrings; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
