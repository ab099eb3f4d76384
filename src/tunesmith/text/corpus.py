"""Raw documents to pretrain on: a file, a folder of files, or a data set of the hub, read as a stream.

Nothing here executes what it reads, and nothing is held in memory beyond one document.
"""

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from tunesmith.base.config import Config
from tunesmith.base.errors import DataError
from tunesmith.base.files import file_hash
from tunesmith.text.documents import (
    EXTENSIONS,
    SUPPORTED,
    Division,
    checked,
    extension_of,
    read_documents,
    text_column,
)
from tunesmith.text.lines import MAX_LINE_BYTES, one_line
from tunesmith.text.table import HUB_ID, OTHER_EXTENSIONS

# A split's name, then no letter: train.txt and train-00001-of-00008.jsonl.gz, but not training_plans.txt.
_SPLITS = {
    "train": re.compile(r"train(?![^\W\d_])", re.IGNORECASE),
    "dev": re.compile(r"(dev|validation|valid|val)(?![^\W\d_])", re.IGNORECASE),
    "test": re.compile(r"test(?![^\W\d_])", re.IGNORECASE),
}


class CorpusSettings(Config):
    """How raw text is read."""

    documents: Division = pydantic.Field(
        default="blocks",
        description="What a document of a plain text is: blocks between blank lines, lines, or whole files.",
    )
    text: str | None = pydantic.Field(
        default=None,
        description="Column that holds the text; found by itself where it is called text, content or document.",
    )
    max_line_bytes: int = pydantic.Field(
        default=MAX_LINE_BYTES, ge=1, le=2**31 - 2, description="Longest line, in bytes; a longer one is an error."
    )
    max_document_characters: int = pydantic.Field(
        default=64 * 2**20,
        ge=1,
        description="Longest document of several lines, in characters; a longer one is an error.",
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A document and where it stands.

    Attributes:
        text: Its text.
        number: Its number in the corpus, from 0.
        source: The file.
        place: The line (for Parquet and the hub the row) that it begins at, from 1.
    """

    text: str
    number: int
    source: str
    place: int

    @property
    def where(self) -> str:
        """Where it stands, as messages say it: "wiki.txt line 17"."""
        unit = "line" if not self.source.endswith(".parquet") and extension_of(self.source) else "row"
        return f"{self.source} {unit} {self.place}"


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set of the hub.

    Attributes:
        name: Its id.
        config: Which of its configurations; None for the default.
        split: Its split, as it is called there.
        revision: The commit, so that the same text is read again.
    """

    name: str
    config: str | None
    split: str
    revision: str | None


@dataclass(frozen=True)
class Corpus:
    """Documents of one split; iterating reads them anew, always in the same order.

    Attributes:
        files: Its files, in order.
        hub: What to read from the hub in place of files.
        settings: How they are read.
    """

    files: tuple[Path, ...] = ()
    hub: HubSplit | None = None
    settings: CorpusSettings = CorpusSettings()

    def __iter__(self) -> Iterator[Document]:
        """The documents.

        Raises:
            DataError: A file cannot be read, is damaged or lacks the text column, or there is no text at all.
        """
        found = (
            Document(text, number, source, place)
            for number, (source, place, text) in enumerate(self._from_files() if self.hub is None else self._from_hub())
        )
        first = next(found, None)
        if first is None:
            raise DataError(f"{self.name}: holds no text: give at least one document")
        yield from itertools.chain([first], found)

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.hub is not None:
            return f"{self.hub.name} ({self.hub.split})"
        return str(self.files[0]) + (f" and {len(self.files) - 1} more" if len(self.files) > 1 else "")

    def fingerprint(self) -> str:
        """Hash of all that the documents depend on: order, kind, size and content of the files, and the settings."""
        return _fingerprint(self, self.stamps())

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Size and time of change of each file, to see whether they change while they are read."""
        try:
            return tuple((found.st_size, found.st_mtime_ns) for found in (path.stat() for path in self.files))
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}): check the path") from None

    def _from_files(self) -> Iterator[tuple[str, int, str]]:
        settings = self.settings
        for path in self.files:
            found = read_documents(
                path,
                division=settings.documents,
                column=settings.text,
                max_line_bytes=settings.max_line_bytes,
                max_document_characters=settings.max_document_characters,
            )
            for place, text in found:
                yield str(path), place, text

    def _from_hub(self) -> Iterator[tuple[str, int, str]]:
        assert self.hub is not None
        hub, column = self.hub, self.settings.text
        try:
            rows = _datasets(hub.name).load_dataset(
                hub.name, hub.config, split=hub.split, revision=hub.revision, streaming=True
            )
            for number, row in enumerate(rows, 1):
                where = f"{self.name} row {number}"
                if column is None or column not in row:
                    column = text_column(list(row), where, column)
                if text := checked(row[column], column, where):
                    yield self.name, number, text
        except DataError:
            raise
        except Exception as error:  # the library raises dozens of types, for the network, the hub and the files alike
            raise DataError(f"{hub.name}: cannot be read from the hub ({one_line(error)}): check the network") from None


@functools.lru_cache(maxsize=16)
def _fingerprint(corpus: Corpus, stamps: tuple[tuple[int, int], ...]) -> str:
    """See `Corpus.fingerprint`; remembered as long as the files are the same, as several ask for it."""
    digest = hashlib.sha256(corpus.settings.model_dump_json().encode())
    if corpus.hub is not None:
        digest.update(repr(corpus.hub).encode())
    for path, (size, _) in zip(corpus.files, stamps, strict=True):
        try:
            digest.update(f"{extension_of(path.name)} {size} {file_hash(path)}\n".encode())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    return digest.hexdigest()


@dataclass(frozen=True)
class Corpora:
    """What a path holds.

    Attributes:
        splits: Some of "train", "dev" and "test", in that order.
        ignored: Files of the folder that are not read, for the user to be told.
    """

    splits: dict[str, Corpus]
    ignored: tuple[str, ...] = ()


def open_corpus(source: str | Path, settings: CorpusSettings) -> Corpora:
    """The corpora of a file, a folder, or a data set of the hub; the first document of each is read, as a test.

    A folder is read with its subfolders, hidden files aside, in the order of the names. Files that are named train, dev
    (or validation, valid, val) or test, alone or before something that is no letter, are those splits. Where none is
    named train, files without a split's name are the train split.

    Raises:
        DataError: There is nothing by that name, or nothing in it that can be read.
    """
    name = str(source)
    if os.path.isdir(source):
        found = _folder(Path(source), settings)
    else:
        is_path = isinstance(source, Path) or name.lower().endswith((*EXTENSIONS, *OTHER_EXTENSIONS, ".csv", ".tsv"))
        hub_id = None if is_path or os.path.lexists(name) else HUB_ID.fullmatch(name)
        if hub_id is not None:
            found = _hub(hub_id["name"], hub_id["config"], settings)
        else:
            found = Corpora({"train": _file(Path(source), settings)})
    for corpus in found.splits.values():
        next(iter(corpus))
    return found


def _file(path: Path, settings: CorpusSettings) -> Corpus:
    if not os.path.lexists(path):
        raise DataError(f"{path}: no such file or folder: check the path")
    if extension_of(path.name) is None:
        raise DataError(f"{path}: has an extension that is not supported: use one of {SUPPORTED}")
    return Corpus((path,), settings=settings)


def _folder(folder: Path, settings: CorpusSettings) -> Corpora:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions")

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    found.sort(key=lambda path: path.relative_to(folder).parts)
    readable = [path for path in found if extension_of(path.name)]
    if not readable:
        shown = ", ".join(str(path.relative_to(folder)) for path in found[:10]) + (", ..." if len(found) > 10 else "")
        raise DataError(f"{folder}: holds no file that can be read ({SUPPORTED}); found {shown or 'nothing'}")
    splits: dict[str, list[Path]] = {name: [] for name in _SPLITS}
    others: list[Path] = []
    for path in readable:
        first = path.relative_to(folder).parts[0]
        splits.get(next((name for name, pattern in _SPLITS.items() if pattern.match(first)), ""), others).append(path)
    if not splits["train"]:
        splits["train"], others = others, []
    ignored = [path for path in found if path in set(others) or not extension_of(path.name)]
    corpora = {name: Corpus(tuple(paths), settings=settings) for name, paths in splits.items() if paths}
    return Corpora(corpora, tuple(str(path.relative_to(folder)) for path in ignored))


def _datasets(name: str) -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # the optional extra `data`
    except ImportError:
        raise DataError(
            f"{name}: no such file or folder here; to load it from the hub run: pip install 'tunesmith[data]'"
        ) from None
    return datasets


def _hub(name: str, config: str | None, settings: CorpusSettings) -> Corpora:
    datasets = _datasets(name)
    import huggingface_hub  # only here: it is slow to import

    try:
        revision = huggingface_hub.HfApi().dataset_info(name).sha
        names = datasets.get_dataset_split_names(name, config, revision=revision)
    except Exception as error:  # the libraries raise dozens of types, for the network, the hub and the files alike
        raise DataError(f"{name}: cannot be loaded from the hub ({one_line(error)}): check name and network") from None
    splits: dict[str, Corpus] = {}
    for split, pattern in _SPLITS.items():
        original = next((found for found in names if pattern.match(found)), None)
        if original is not None:
            splits[split] = Corpus(hub=HubSplit(name, config, original, revision), settings=settings)
    if not splits:
        raise DataError(f"{name}: has no split named train, dev or test; found {', '.join(names)}: use files instead")
    return Corpora(splits, tuple(n for n in names if all(c.hub is None or c.hub.split != n for c in splits.values())))
