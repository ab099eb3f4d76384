"""The documents of one file, one after the other: memory holds a document and never the file."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow
from pyarrow import parquet

from tunesmith.base.errors import DataError
from tunesmith.text.lines import decoded_lines, json_object, one_line

Division = Literal["blocks", "lines", "files"]

TEXT = (".txt",)
JSON_LINES = (".jsonl", ".ndjson", ".json")
_ZIPPED = (*TEXT, *JSON_LINES)
EXTENSIONS = (*TEXT, *JSON_LINES, *(extension + ".gz" for extension in _ZIPPED), ".parquet")
SUPPORTED = ".txt .jsonl .ndjson .json (each also .gz) .parquet"
COLUMNS = ("text", "content", "document")
_PARQUET_ROWS = 64  # read at once


def extension_of(name: str) -> str | None:
    """The extension that says how a file is read; None where it is none of ours."""
    return next((extension for extension in EXTENSIONS if name.lower().endswith(extension)), None)


def read_documents(
    path: Path, *, division: Division, column: str | None, max_line_bytes: int, max_document_characters: int
) -> Iterator[tuple[int, str]]:
    """The documents of a file, each with the line (for Parquet the row) that it begins at, from 1.

    Lines of a document are joined by line breaks; documents without any text are left out.

    Args:
        path: The file; its extension says the format.
        division: What divides a plain text: blank lines, line breaks, or the file's end.
        column: The column of JSON Lines and Parquet that holds the text; None: the first of ``COLUMNS`` there is.
        max_line_bytes: Longest line.
        max_document_characters: Longest document of several lines.

    Raises:
        DataError: The file cannot be read, is damaged or binary, or lacks the column.
    """
    source = str(path)
    extension = extension_of(source)
    if extension is None:
        raise DataError(f"{source}: has an extension that is not supported: use one of {SUPPORTED}")
    try:
        with open(path, "rb") as stream:
            if extension == ".parquet":
                yield from _parquet(stream, source, column)
                return
            hint = "is a line break missing? Longer ones: data.max_line_bytes"
            lines = decoded_lines(_unzipped(stream, extension), source, limit=max_line_bytes, hint=hint)
            if extension.removesuffix(".gz") in JSON_LINES:
                yield from _json_lines(lines, source, column)
            elif division == "lines":
                yield from _lines(lines)
            else:
                yield from _joined(lines, source, division, max_document_characters)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source}: is a truncated or damaged gzip file ({one_line(error)}): make it again") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or one_line(error)}): check the path") from None


def _unzipped(stream: io.BufferedReader, extension: str) -> io.BufferedReader:
    return io.BufferedReader(gzip.GzipFile(fileobj=stream)) if extension.endswith(".gz") else stream


def _lines(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, text


def _joined(lines: Iterator[str], source: str, division: Division, limit: int) -> Iterator[tuple[int, str]]:
    kept: list[str] = []
    start, size = 0, 0
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        blank = not text.strip()
        if blank and (division == "blocks" or not kept):
            if kept:
                yield start, "\n".join(kept)
            kept, size = [], 0
            continue
        if not kept:
            start = number
        kept.append("" if blank else text)
        size += len(line)
        if size > limit:
            raise DataError(
                f"{source} line {start}: the document that begins here is longer than {limit} characters: "
                "put blank lines between documents, or set data.documents=lines"
            )
    while kept and not kept[-1]:
        kept.pop()
    if kept:
        yield start, "\n".join(kept)


def _json_lines(lines: Iterator[str], source: str, column: str | None) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        row = json_object(line, where)
        if column is None or column not in row:
            column = text_column(list(row), where, column)
        if text := checked(row[column], column, where):
            yield number, text


def _parquet(stream: io.BufferedReader, source: str, column: str | None) -> Iterator[tuple[int, str]]:
    try:
        file = parquet.ParquetFile(stream)
        column = text_column(file.schema_arrow.names, source, column)
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                if text := checked(value, column, f"{source} row {number}"):
                    yield number, text
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{source}: is not a readable Parquet file ({one_line(error)}): make it again") from None


def text_column(names: list[str], where: str, column: str | None) -> str:
    """The column that holds the text.

    Raises:
        DataError: There is none of that name, or none of the usual names.
    """
    wanted = COLUMNS if column is None else (column,)
    found = next((name for name in wanted if name in names), None)
    if found is None:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "nothing"
        raise DataError(f"{where}: has no column {' or '.join(wanted)}; found {shown}: set data.text to the column")
    return found


def checked(value: Any, column: str, where: str) -> str:
    """The text of a cell; empty where there is none.

    Raises:
        DataError: It holds something else than text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} holds a {type(value).__name__} where a text is needed: set data.text")
    return value if value.strip() else ""
