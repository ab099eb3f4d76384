"""Labelled data: a CSV, TSV, JSON Lines or Parquet file, or a folder or hub data set of such files.

Nothing here executes what it reads: no pickles, no loading scripts. Whatever is wrong with a file is one line
of `DataError` that begins with the file and, where there is one, the line.
"""

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow
from pyarrow import parquet

from tunesmith.base.errors import DataError
from tunesmith.text.lines import decoded_lines, json_object, one_line

MAX_CELL_CHARACTERS = 16 * 2**20  # a quoted cell may span lines, so it needs a limit of its own
MAX_JSON_KEYS = 1000  # every key becomes a column of every row: ids used as keys would fill the memory

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT_EXTENSIONS = (*DELIMITERS, *JSON_LINES)
EXTENSIONS = (*TEXT_EXTENSIONS, *(extension + ".gz" for extension in TEXT_EXTENSIONS), ".parquet")
SUPPORTED = ".csv .tsv .jsonl .ndjson .json (each also .gz) .parquet"
# Typical files that we cannot read: "reviews.xlsx" with a typo must not be asked for on the hub.
OTHER_EXTENSIONS = (
    ".txt",
    ".xls",
    ".xlsx",
    ".xml",
    ".zip",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".arrow",
    ".pkl",
    ".pickle",
)

SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
SPLIT_NAMES = "train, dev (or validation, valid, val) or test"
HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[\w.-]+))?", re.ASCII)


@dataclass(frozen=True)
class Table:
    """The rows of one file, by column, each row with its place in the file.

    Attributes:
        columns: The cells by column name, all columns equally long; a missing cell is None. Cells of CSV and
            TSV are strings; those of JSON Lines and Parquet whatever the file holds, hence `Any`.
        source: The file, as the user gave it.
        lines: Where each row begins in its file: the line, or for Parquet the row, counted from 1.
        unit: What `lines` counts.
    """

    columns: dict[str, list[Any]]
    source: str
    lines: list[int]
    unit: Literal["line", "row"] = "line"

    def __post_init__(self) -> None:
        assert all(len(column) == len(self.lines) for column in self.columns.values()), "ragged table"

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, i: int) -> str:
        """Where row `i` (from 0) stands, as messages say it: "reviews.csv line 17"."""
        return f"{self.source} {self.unit} {self.lines[i]}"

    def select(self, indices: Sequence[int]) -> "Table":
        """The rows `indices` (from 0), in that order, each still with its place in the file."""
        columns = {name: [column[i] for i in indices] for name, column in self.columns.items()}
        return Table(columns, self.source, [self.lines[i] for i in indices], self.unit)


def read_table(path: str | Path) -> Table:
    """The table of one file; its extension says the format.

    Text is UTF-8 (a byte order mark is dropped). CSV and TSV need a header row, may quote cells (also over
    several lines) and give strings, with None for an empty cell. JSON Lines hold one object per line; a key
    that a line lacks is None. Blank lines are skipped.

    In a TSV file quotation marks quote cells or are plain characters (as in GLUE, where a cell may begin with one
    that is never closed); the file as a whole tells which. They quote if every cell that begins with one is closed
    as CSV has it and all rows have as many cells as the header; they are plain characters if not. Where both
    readings fit, and the quoted one only by drawing several lines into one cell, each line is a row: that is what a
    stray mark at the beginning of a cell and another one at the end of a later cell look like.

    Raises:
        DataError: The file cannot be opened, has an unknown extension, holds no rows, or is damaged anywhere.
    """
    source = str(path)
    try:
        size = os.stat(path).st_size
        if os.path.isdir(path):
            raise DataError(f"{source}: is a folder where a file is needed: name one of the files in it")
        extension = _extension(source)
        if extension is None:
            raise DataError(f"{source}: has an extension that is not supported: use one of {SUPPORTED}")
        if size == 0 and os.path.isfile(path):
            raise DataError(f"{source}: is empty: it needs at least one row")
        with open(path, "rb") as stream:
            return _read(stream, source, extension)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{source}: no such file or folder: check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source}: is a truncated or damaged gzip file ({one_line(error)}): make it again") from None
    except OSError as error:
        raise DataError(
            f"{source}: cannot be read ({error.strerror or one_line(error)}): check its permissions"
        ) from None


def read_data(source: str | Path) -> dict[str, Table]:
    """The splits of a data set: some of "train", "dev" and "test", in that order.

    Args:
        source: A file (it becomes "train"); a folder with files named train, dev (or validation, valid, val)
            and test; or else the id of a data set on the hub, `owner/name` or `name`, with `:config` for one
            of several configurations. What begins with "." or "/", ends like a file or exists is never tried
            there.

    Raises:
        DataError: There is nothing by that name, two files hold the same split, no file holds any, the
            package `datasets` is needed and missing, or a file is wrong in one of the ways of `read_table`.
    """
    name = str(source)
    if os.path.isdir(source):
        return _read_folder(name)
    is_path = isinstance(source, Path) or name.lower().endswith(EXTENSIONS + OTHER_EXTENSIONS)
    hub_id = None if is_path or os.path.lexists(name) else HUB_ID.fullmatch(name)
    if hub_id is None:
        return {"train": read_table(source)}
    return _read_hub(hub_id["name"], hub_id["config"])


def _extension(name: str) -> str | None:
    return next((extension for extension in EXTENSIONS if name.lower().endswith(extension)), None)


def _read(stream: io.BufferedReader, source: str, extension: str) -> Table:
    if extension == ".parquet":
        return _read_parquet(stream, source)
    if extension.endswith(".gz"):
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream))
    lines = decoded_lines(stream, source)
    kind = extension.removesuffix(".gz")
    if kind in JSON_LINES:
        return _read_json_lines(lines, source)
    return _read_tabs(lines, source) if kind == ".tsv" else _read_delimited(lines, source, DELIMITERS[kind])


def _check_names(names: Sequence[str], where: str) -> None:
    for position, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{where}: column {position} has no name: name it, or leave the column out")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: the column name {twice!r} occurs twice: rename one of them")


def _read_tabs(lines: Iterable[str], source: str) -> Table:
    kept = list(lines)
    try:
        quoted = _read_delimited(kept, source, "\t")
        if not any("\n" in cell for name, cells in quoted.columns.items() for cell in (name, *cells) if cell):
            return quoted
    except DataError as error:
        quoted = error
    try:
        return _read_delimited(kept, source, "\t", quotes="plain")
    except DataError:
        if isinstance(quoted, DataError):
            raise quoted from None
        return quoted


def _read_delimited(
    lines: Iterable[str], source: str, delimiter: str, *, quotes: Literal["quote", "plain"] = "quote"
) -> Table:
    quoting = csv.QUOTE_MINIMAL if quotes == "quote" else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    header: list[str] | None = None
    rows: list[list[str]] = []
    starts: list[int] = []
    start = 1
    limit = csv.field_size_limit(MAX_CELL_CHARACTERS)  # a setting of the whole process: put back below
    try:
        for row in reader:
            where, start, row_start = f"{source} line {start}", reader.line_num + 1, start
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
                _check_names(header, where)
            elif len(row) == len(header):
                rows.append(row)
                starts.append(row_start)
            elif len(row) > 1 or row[0].strip():
                raise DataError(
                    f"{where}: has {len(row)} cells where the header has {len(header)}: "
                    "quote the cells that hold a delimiter or a quotation mark"
                )
    except csv.Error as error:
        raise DataError(
            f"{source} line {start}: the row that begins here is broken ({one_line(error)}): "
            "close every quoted cell and double the quotation marks inside it"
        ) from None
    finally:
        csv.field_size_limit(limit)
    if header is None:
        raise DataError(f"{source}: is empty: it needs a header and at least one row")
    if not rows:
        raise DataError(f"{source}: has a header but no rows: it needs at least one")
    columns = {name: [row[at] or None for row in rows] for at, name in enumerate(header)}
    return Table(columns, source, starts)


def _read_json_lines(lines: Iterable[str], source: str) -> Table:
    rows: list[dict[str, Any]] = []
    starts: list[int] = []
    names: dict[str, None] = {}  # an ordered set
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        row = json_object(line, where)
        if not row.keys() <= names.keys():
            names |= dict.fromkeys(row)
            _check_names(list(names), where)
            if len(names) > MAX_JSON_KEYS:
                raise DataError(f"{where}: more than {MAX_JSON_KEYS} different keys: use keys as column names")
        rows.append(row)
        starts.append(number)
    if not names:
        raise DataError(f"{source}: holds no rows: it needs at least one object with a key")
    return Table({name: [row.get(name) for row in rows] for name in names}, source, starts)


def _read_parquet(stream: io.BufferedReader, source: str) -> Table:
    try:
        return _from_arrow(parquet.ParquetFile(stream).read(), source)
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{source}: is not a readable Parquet file ({one_line(error)}): make it again") from None


def _from_arrow(table: pyarrow.Table, source: str) -> Table:
    _check_names(table.column_names, source)
    if not table.num_rows or not table.num_columns:
        raise DataError(f"{source}: holds no rows: it needs at least one")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(columns, source, list(range(1, table.num_rows + 1)), "row")


def _by_split(names: Iterable[tuple[str, str]], source: str) -> dict[str, str]:
    """The name that holds each split, out of pairs of a name and what it is called without extension."""
    found: dict[str, str] = {}
    for name, stem in names:
        split = next((split for split, stems in SPLITS.items() if stem.lower() in stems), None)
        if split in found:
            raise DataError(f"{source}: both {found[split]} and {name} hold the {split} split: remove one of them")
        if split is not None:
            found[split] = name
    return {split: found[split] for split in SPLITS if split in found}


def _read_folder(source: str) -> dict[str, Table]:
    try:
        entries = sorted(os.listdir(source))
    except OSError as error:
        raise DataError(f"{source}: cannot be listed ({error.strerror}): check its permissions") from None
    pairs = [(name, name[: -len(extension)]) for name in entries if (extension := _extension(name))]
    files = _by_split(pairs, source)
    if not files:
        shown = ", ".join(entries[:10]) + (", ..." if len(entries) > 10 else "") or "nothing"
        raise DataError(f"{source}: no file named {SPLIT_NAMES} with a supported extension; found {shown}: rename")
    return {split: read_table(os.path.join(source, name)) for split, name in files.items()}


def _read_hub(name: str, config: str | None) -> dict[str, Table]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # the optional extra `data`
    except ImportError:
        raise DataError(
            f"{name}: no such file or folder here; to load it from the hub run: pip install 'tunesmith[data]'"
        ) from None
    try:
        # Without trust_remote_code, never given here, `datasets` refuses to run a repository's own script.
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the library raises dozens of types, for the network, the hub and the files alike
        raise DataError(f"{name}: cannot be loaded from the hub ({one_line(error)}): check name and network") from None
    splits = _by_split([(split, split) for split in loaded], name)
    if not splits:
        raise DataError(f"{name}: has no split named {SPLIT_NAMES}; found {', '.join(loaded)}: use files instead")
    tables: dict[str, Table] = {}
    for split, original in splits.items():
        table = _from_arrow(loaded[original].with_format("arrow")[:], f"{name} ({original})")
        for column, feature in loaded[original].features.items():
            inner = getattr(feature, "feature", feature)  # a list of class indices, or one
            if isinstance(inner, datasets.ClassLabel):
                table.columns[column] = [_class_names(inner.names, cell) for cell in table.columns[column]]
        tables[split] = table
    return tables


def _class_names(names: list[str], cell: int | list[int | None] | None) -> str | list[Any] | None:
    """Class names in place of indices; the index -1, which the hub uses for a hidden label, is missing."""
    if isinstance(cell, list):
        return [_class_names(names, index) for index in cell]
    return None if cell is None or cell < 0 else names[cell]
