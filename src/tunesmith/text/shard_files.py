"""One shard on disk: token ids, the lengths of its sentences and documents, and a JSON index with their checksums.

``00007.tokens.bin`` holds the token ids, ``00007.bounds.bin`` the tokens of each sentence and then the sentences of
each document as uint32; both are plain little-endian arrays. ``00007.json`` comes last: a shard that has it is whole.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunesmith.base.errors import CheckpointError, DataError
from tunesmith.base.files import file_hash, read_json, write_atomic
from tunesmith.base.shapes import Shaped

IdType = Literal["uint16", "uint32"]
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
BOUNDS = np.dtype("<u4")
MEND = "delete index.json beside it and run again: what is whole is kept"


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds.

    Attributes:
        key: Hash of all that the tokens depend on.
        number: Its number, from 0.
        id_type: Type of the token ids.
        num_tokens: Tokens.
        num_sentences: Sentences.
        num_documents: Documents.
        num_bytes: UTF-8 bytes of their text.
        num_empty: Documents that gave no token and were left out.
        tokens_sha256: SHA-256 of the file of token ids.
        bounds_sha256: SHA-256 of the file of lengths.
    """

    key: str
    number: int
    id_type: IdType
    num_tokens: int
    num_sentences: int
    num_documents: int
    num_bytes: int
    num_empty: int
    tokens_sha256: str
    bounds_sha256: str

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self._size_of_tokens + self._size_of_bounds

    @property
    def _size_of_tokens(self) -> int:
        return self.num_tokens * DTYPES[self.id_type].itemsize

    @property
    def _size_of_bounds(self) -> int:
        return (self.num_sentences + self.num_documents) * BOUNDS.itemsize

    def tokens_path(self, folder: Path) -> Path:
        """File of the token ids."""
        return folder / f"{self.number:05d}.tokens.bin"

    def bounds_path(self, folder: Path) -> Path:
        """File of the lengths."""
        return folder / f"{self.number:05d}.bounds.bin"

    def tokens(self, folder: Path) -> Shaped[np.ndarray, "T"]:
        """The token ids, mapped and not read."""
        if not self.num_tokens:
            return np.zeros(0, DTYPES[self.id_type])  # an empty file cannot be mapped
        return np.memmap(self.tokens_path(folder), DTYPES[self.id_type], mode="r", shape=(self.num_tokens,))

    def bounds(self, folder: Path) -> tuple[Shaped[np.ndarray, "S"], Shaped[np.ndarray, "D"]]:
        """Tokens of each sentence, and sentences of each document."""
        both = np.fromfile(self.bounds_path(folder), BOUNDS)
        return both[: self.num_sentences], both[self.num_sentences :]

    def check(self, folder: Path, *, holds: Callable[[Path, str], bool]) -> None:
        """See that the files are there and whole.

        Args:
            folder: Where they lie.
            holds: Says whether a file has a SHA-256.

        Raises:
            DataError: One is missing, of another size, or of other content.
        """
        sizes = (
            (self.tokens_path(folder), self._size_of_tokens, self.tokens_sha256),
            (self.bounds_path(folder), self._size_of_bounds, self.bounds_sha256),
        )
        for path, size, sha256 in sizes:
            try:
                found = path.stat().st_size
                if found != size:
                    raise DataError(f"{path}: this shard is damaged: it has {found} bytes and not {size}: {MEND}")
                if not holds(path, sha256):
                    raise DataError(f"{path}: this shard is damaged: its SHA-256 is not that in its index: {MEND}")
            except FileNotFoundError:
                raise DataError(f"{path}: this shard is missing: {MEND}") from None
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None


def index_path(folder: Path, number: int) -> Path:
    """Index file of a shard."""
    return folder / f"{number:05d}.json"


def write_shard(
    folder: Path,
    *,
    key: str,
    number: int,
    id_type: IdType,
    documents: Sequence[Sequence[Sequence[int]]],
    num_bytes: int,
    num_empty: int,
) -> ShardIndex:
    """Write a shard; its index comes last.

    Raises:
        StorageError: No permission or no space; nothing half-written stays.
    """
    sentences = [sentence for document in documents for sentence in document]
    lengths = [len(sentence) for sentence in sentences]
    flat = (i for sentence in sentences for i in sentence)
    tokens = np.fromiter(flat, DTYPES[id_type], sum(lengths)).tobytes()
    bounds = np.array([*lengths, *(len(document) for document in documents)], BOUNDS).tobytes()
    index = ShardIndex(
        key=key,
        number=number,
        id_type=id_type,
        num_tokens=sum(lengths),
        num_sentences=len(lengths),
        num_documents=len(documents),
        num_bytes=num_bytes,
        num_empty=num_empty,
        tokens_sha256=hashlib.sha256(tokens).hexdigest(),
        bounds_sha256=hashlib.sha256(bounds).hexdigest(),
    )
    write_atomic(index.tokens_path(folder), tokens)
    write_atomic(index.bounds_path(folder), bounds)
    write_atomic(index_path(folder, number), json.dumps(asdict(index), indent=1) + "\n")
    return index


def read_shard(folder: Path, *, key: str, number: int) -> ShardIndex | None:
    """The index of a shard that is whole, checksums and all; None where it is not."""
    try:
        index = as_index(read_json(index_path(folder, number)), index_path(folder, number))
        index.check(folder, holds=lambda path, sha256: file_hash(path) == sha256)
    except (CheckpointError, DataError):
        return None
    return index if (index.key, index.number) == (key, number) else None


def as_index(tree: dict[str, Any], path: Path) -> ShardIndex:
    """A shard's index from JSON.

    Raises:
        DataError: It lacks a field, has one too many, or one of a wrong type.
    """
    kinds = {name: int if kind is int else str for name, kind in ShardIndex.__annotations__.items()}
    fits = tree.keys() == kinds.keys() and all(type(tree[name]) is kind for name, kind in kinds.items())
    if not fits or tree["id_type"] not in DTYPES or any(v < 0 for v in tree.values() if isinstance(v, int)):
        raise DataError(f"{path}: this index of tokens is damaged: {MEND}")
    return ShardIndex(**tree)
