"""Lines of UTF-8 files and JSON objects in them, checked; what is wrong is one line that names file and line."""

import codecs
import io
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from tunesmith.base.errors import DataError

MAX_LINE_BYTES = 16 * 2**20


def one_line(error: Exception) -> str:
    """What an error of a library says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def decoded_lines(
    stream: io.BufferedReader, source: str, *, limit: int = MAX_LINE_BYTES, hint: str = "write one row per line"
) -> Iterator[str]:
    """The lines of ``stream`` with their ends; a byte order mark is dropped.

    Args:
        stream: The file.
        source: The file, as messages name it.
        limit: Longest line, in bytes: no more is ever read at once.
        hint: What to do about a longer one.

    Raises:
        DataError: A line is longer, holds a NUL byte, or is not UTF-8.
    """
    offset = 0
    for number in itertools.count(1):
        line = stream.readline(limit + 1)
        if not line:
            return
        where = f"{source} line {number}"
        if len(line) > limit:
            raise DataError(f"{where}: is longer than {limit} bytes: {hint}")
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{where}: is UTF-16 text: save the file as UTF-8")
        if b"\0" in line:
            at = offset + line.index(b"\0")
            raise DataError(f"{where}: holds a NUL byte at offset {at}: give a text file, saved as UTF-8")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            at = f"byte 0x{line[error.start]:02x} at offset {offset + error.start}"
            raise DataError(f"{where}: is not UTF-8 text ({at}): save the file as UTF-8") from None
        offset += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text


def json_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        DataError: It is not valid JSON, not an object, has a key twice, or holds what no tokenizer can encode.
    """
    try:
        row = _decode_json(line)
        if "\\ud" in line or "\\uD" in line:  # half a surrogate pair is legal JSON that no tokenizer can encode
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at column {error.colno}"
        raise DataError(f"{where}: is not valid JSON ({problem}): write one object per line") from None
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply: write one flat object per line") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half a surrogate pair (\\ud800 to \\udfff): mend the text") from None
    except ValueError as error:
        raise DataError(f"{where}: is not usable JSON ({one_line(error)}): mend this line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: is a JSON {type(row).__name__}, not an object: write one object per line")
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return row


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_decode_json = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_refuse_constant
).decode
