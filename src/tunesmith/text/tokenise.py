"""Turn documents into shards: which documents a shard holds is known from the text alone, so any process can make any.

A shard is filled until its text has ``shard_bytes`` bytes. Each of several processes reads the whole corpus (cheap
beside tokenising), and makes the shards whose turn it is; what is whole already is left as it is.

This file is also the program of such a process: its job is one line of JSON on standard input, its answers are lines of
JSON on standard output. When its standard input ends, its parent is dead, and it ends too.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from tunesmith.base.errors import DataError, UserError
from tunesmith.base.shapes import Bool
from tunesmith.text.corpus import Corpus, CorpusSettings, HubSplit
from tunesmith.text.sentences import split_sentences
from tunesmith.text.shard_files import IdType, ShardIndex, read_shard, write_shard
from tunesmith.text.tokenizer import Tokenizer

_BATCH_CHARACTERS = 2**20  # given to the tokenizer at once


@dataclass(frozen=True)
class Job:
    """What to tokenise.

    Attributes:
        corpus: The documents.
        tokenizer: The tokenizer.
        folder: Where the shards go.
        key: Hash of all that the tokens depend on.
        id_type: Type of the token ids.
        shard_bytes: UTF-8 bytes of text in a shard; the last document may go beyond.
        keep: Which documents are wanted, by number; None for all.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    folder: Path
    key: str
    id_type: IdType
    shard_bytes: int
    keep: Bool[np.ndarray, "D"] | None = None


def make_shards(job: Job, *, turn: int, turns: int, report: Callable[[ShardIndex], None]) -> int:
    """Make the shards ``turn``, ``turn + turns``, ...; those that are whole are only reported. Gives the number of all.

    Raises:
        DataError: A file of the corpus cannot be read.
        StorageError: A shard cannot be written; those before it are whole.
    """
    joins = _stands_alone(job.tokenizer)
    number = -1
    for number, texts in enumerate(_shards(job)):
        if number % turns != turn:
            continue
        index = read_shard(job.folder, key=job.key, number=number)
        report(_make(job, number, texts, stands_alone=joins) if index is None else index)
    return number + 1


def _shards(job: Job) -> Iterator[list[str]]:
    """The texts of one shard after the other."""
    texts: list[str] = []
    size = 0
    for document in job.corpus:
        if job.keep is not None:
            if document.number >= len(job.keep):
                raise DataError(f"{document.where}: the corpus has grown since it was cleaned: run again")
            if not job.keep[document.number]:
                continue
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= job.shard_bytes:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _make(job: Job, number: int, texts: list[str], *, stands_alone: bool) -> ShardIndex:
    documents: list[list[list[int]]] = []
    num_bytes = num_empty = 0
    for text, sentences in zip(texts, _tokenised(job.tokenizer, texts, stands_alone=stands_alone), strict=True):
        if sentences:
            documents.append(sentences)
            num_bytes += len(text.encode())
        else:
            num_empty += 1
    return write_shard(
        job.folder,
        key=job.key,
        number=number,
        id_type=job.id_type,
        documents=documents,
        num_bytes=num_bytes,
        num_empty=num_empty,
    )


def _tokenised(tokenizer: Tokenizer, texts: list[str], *, stands_alone: bool) -> Iterator[list[list[int]]]:
    """Token ids of the sentences of each text; sentences without a token are left out."""
    pieces = [
        [piece for piece in (p.lstrip() if stands_alone else p for p in split_sentences(text)) if piece]
        for text in texts
    ]
    flat = [piece for document in pieces for piece in document]
    ids = _in_batches(tokenizer, flat)
    for document in pieces:
        yield [found for found in (next(ids) for _ in document) if found]


def _in_batches(tokenizer: Tokenizer, texts: list[str]) -> Iterator[list[int]]:
    start = size = 0
    for stop, text in enumerate(texts, 1):
        size += len(text)
        if size >= _BATCH_CHARACTERS or stop == len(texts):
            yield from tokenizer.plain(texts[start:stop])
            start, size = stop, 0


def _stands_alone(tokenizer: Tokenizer) -> bool:
    """Whether a word has the same tokens at the beginning of a text as behind a space.

    If so, a sentence is tokenised without the space before it; if not (GPT-2's kind), that space belongs to its first
    token, and with it the tokens are those of the text as a whole.
    """
    one, two, both = tokenizer.plain(["a", "b", "b a"])
    return both[len(two) :] == one


def job_line(job: Job, *, turn: int, turns: int) -> str:
    """A job for another process, as one line."""
    keep = None if job.keep is None else np.packbits(job.keep).tobytes().hex()
    return json.dumps(
        {
            "files": [str(path) for path in job.corpus.files],
            "hub": None if job.corpus.hub is None else asdict(job.corpus.hub),
            "settings": job.corpus.settings.model_dump(),
            "tokenizer": job.tokenizer.fingerprint(),
            "folder": str(job.folder),
            "key": job.key,
            "id_type": job.id_type,
            "shard_bytes": job.shard_bytes,
            "keep": keep,
            "num_keep": 0 if job.keep is None else len(job.keep),
            "turn": turn,
            "turns": turns,
        }
    )


def _job(tree: dict[str, Any]) -> Job:
    keep = None
    if tree["keep"] is not None:
        bits = np.frombuffer(bytes.fromhex(tree["keep"]), np.uint8)
        keep = np.unpackbits(bits, count=tree["num_keep"]).astype(bool)
    hub = None if tree["hub"] is None else HubSplit(**tree["hub"])
    files = tuple(Path(name) for name in tree["files"])
    return Job(
        corpus=Corpus(files, hub, CorpusSettings.model_validate(tree["settings"])),
        tokenizer=Tokenizer(Backend.from_str(tree["tokenizer"]), {}),
        folder=Path(tree["folder"]),
        key=tree["key"],
        id_type=tree["id_type"],
        shard_bytes=tree["shard_bytes"],
        keep=keep,
    )


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock, held by this thread, would break the interpreter's end
        pass
    os._exit(3)


def _main() -> None:
    tree = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)

    try:
        total = make_shards(
            _job(tree), turn=tree["turn"], turns=tree["turns"], report=lambda index: say({"shard": asdict(index)})
        )
        say({"total": total})
    except UserError as error:
        say({"error": type(error).__name__, "message": str(error)})
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    _main()
