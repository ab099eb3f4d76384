"""A corpus tokenised once and kept on disk: shards of token ids that are mapped into memory, found by what they are of.

The folder of a corpus is named by the hash of the text, the tokenizer and the settings. Its ``index.json`` comes last;
a call that was killed goes on with the shards that are whole. However many processes work, the bytes are the same.
"""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from tunesmith.base import errors
from tunesmith.base.config import Config
from tunesmith.base.errors import CheckpointError, DataError, SettingError
from tunesmith.base.files import cache_folder, empty_folder, locked, read_json, write_json
from tunesmith.base.shapes import Bool, Int, Shaped
from tunesmith.text.corpus import Corpus
from tunesmith.text.shard_files import MEND, IdType, ShardIndex, as_index
from tunesmith.text.tokenise import Job, job_line, make_shards
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.text.tokens import Tokens
from tunesmith.text.verified import Verified

_VERSION = 1  # of the format and of what makes sentences: raise it when the same text would give other shards


class ShardSettings(Config):
    """How a corpus is tokenised and kept."""

    shard_bytes: int = pydantic.Field(
        default=32 * 2**20,
        ge=1,
        description="UTF-8 bytes of text in a shard; about six times as much memory is needed.",
    )
    workers: int = pydantic.Field(
        default=0,
        ge=0,
        le=256,
        description="Processes that tokenise; 0: this one, with the threads of the tokenizer library.",
    )


class ShardedTokens(Tokens):
    """Tokens on disk; token ids are mapped into memory, bounds of sentences and documents are held.

    Each file is verified by its SHA-256; those of a corpus above a GiB once for their content: see `Verified`.

    Args:
        folder: The folder of the shards.

    Attributes:
        folder: The folder of the shards.
        num_empty: Documents that gave no token and were left out.

    Raises:
        DataError: A file is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        found = _read_index(folder)
        verified = Verified(folder, num_bytes=sum(index.size for index in found))
        for index in found:
            index.check(folder, holds=verified.holds)
        verified.save()
        bounds = [index.bounds(folder) for index in found]
        self.sentences = _summed([sentences for sentences, _ in bounds])
        self.documents = _summed([documents for _, documents in bounds])
        self.num_bytes = sum(index.num_bytes for index in found)
        self.num_empty = sum(index.num_empty for index in found)
        self._starts = np.cumsum([0, *(index.num_tokens for index in found)], dtype=np.int64)
        self._shards = [index.tokens(folder) for index in found]

    def take(self, start: int, stop: int) -> Int[np.ndarray, "T"]:
        """Token ids from one place to another, int64."""
        stop = min(stop, self.num_tokens)
        if start >= stop:
            return np.zeros(0, np.int64)
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        last = int(np.searchsorted(self._starts, stop, "left")) - 1
        parts = [
            self._shards[i][max(start - int(self._starts[i]), 0) : stop - int(self._starts[i])]
            for i in range(first, last + 1)
        ]
        return np.concatenate(parts).astype(np.int64)


def tokenised(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    settings: ShardSettings,
    folder: Path | None = None,
    keep: Bool[np.ndarray, "D"] | None = None,
    progress: Callable[[ShardIndex], None] | None = None,
    waiting: Callable[[], object] | None = None,
) -> ShardedTokens:
    """The tokens of a corpus, from the cache or made and put there.

    A corpus that another process tokenises is waited for; if that process dies, this one goes on with what is whole.

    Args:
        corpus: The documents.
        tokenizer: The tokenizer; special tokens are never put in, and their names in the text are plain text.
        settings: How.
        folder: Where shards of all corpora are kept; None: ``tokens`` in the cache folder.
        keep: Which documents are wanted, by number, as cleaning says; None for all.
        progress: Told of each shard that is whole.
        waiting: Told that another process tokenises this corpus.

    Raises:
        DataError: The corpus cannot be read, gives no token, or changes meanwhile; or a shard is damaged.
        StorageError: The folder cannot be written, or the disk is full.
        SettingError: A process was killed.
    """
    before = corpus.stamps()
    key = _key(corpus, tokenizer, settings.shard_bytes, keep)
    place = (cache_folder("tokens") if folder is None else folder) / key[:32]
    if not (place / "index.json").exists():
        with locked(place, waiting=waiting or (lambda: None)) as lock:
            if not (place / "index.json").exists():  # another process may have made it since
                for path in place.glob(".*.part"):  # of a process that was killed
                    path.unlink(missing_ok=True)
                id_type: IdType = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
                job = Job(corpus, tokenizer, place, key, id_type, settings.shard_bytes, keep)
                _make_all(job, lock, workers=settings.workers, stamps=before, progress=progress)
    return ShardedTokens(place)


def _make_all(
    job: Job,
    lock: int,
    *,
    workers: int,
    stamps: tuple[tuple[int, int], ...],
    progress: Callable[[ShardIndex], None] | None,
) -> None:
    found: dict[int, ShardIndex] = {}

    def report(index: ShardIndex) -> None:
        found[index.number] = index
        if progress is not None:
            progress(index)

    if workers:
        total = _in_processes(job, lock, workers, report)
    else:
        total = make_shards(job, turn=0, turns=1, report=report)
    if job.corpus.stamps() != stamps or len(found) != total:
        empty_folder(job.folder)
        raise DataError(f"{job.corpus.name}: has changed while it was read: run again when it is complete")
    if not any(index.num_tokens for index in found.values()):
        empty_folder(job.folder)
        raise DataError(f"{job.corpus.name}: gives no token: is this the right tokenizer?")
    shards = [asdict(found[number]) for number in sorted(found)]
    made_from = {
        "version": _VERSION,
        "key": job.key,
        "corpus": [str(path) for path in job.corpus.files] or repr(job.corpus.hub),
        "settings": job.corpus.settings.model_dump(),
        "tokenizer_sha256": hashlib.sha256(job.tokenizer.fingerprint().encode()).hexdigest(),
        "shard_bytes": job.shard_bytes,
        "num_kept": None if job.keep is None else int(job.keep.sum()),
    }
    write_json(job.folder / "index.json", {**made_from, "shards": shards, "shards_sha256": _checksum(shards)})


def _in_processes(job: Job, lock: int, workers: int, report: Callable[[ShardIndex], None]) -> int:
    """Make the shards in other processes, each a program of its own that gets its job as text; gives their number.

    They inherit the lock: if this process is killed, it is free when the last of them has ended.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if workers > 1:
        environment["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    answers: queue.Queue[tuple[int, str | None]] = queue.Queue()
    running: list[subprocess.Popen[str]] = []

    def listen(turn: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put((turn, line))
        answers.put((turn, None))

    threads: list[threading.Thread] = []
    try:
        for turn in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "tunesmith.text.tokenise"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                env=environment,
                pass_fds=[lock],
            )
            running.append(process)
            threads.append(threading.Thread(target=listen, args=(turn, process), daemon=True))
            threads[-1].start()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died at once: its last words are read below
                process.stdin.write(job_line(job, turn=turn, turns=workers) + "\n")
                process.stdin.flush()
        return _listen(answers, running, report)
    finally:
        for process in running:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for process in running:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _listen(
    answers: "queue.Queue[tuple[int, str | None]]",
    running: list["subprocess.Popen[str]"],
    report: Callable[[ShardIndex], None],
) -> int:
    totals: dict[int, int] = {}
    last_words = [""] * len(running)
    while len(totals) < len(running):
        turn, line = answers.get()
        if line is None:
            if turn in totals:
                continue
            code = running[turn].wait()
            why = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            said = f" ({last_words[turn]})" if last_words[turn] else ""
            raise SettingError(
                f"data.workers: a process that tokenises {why}{said}: set data.workers=0, or give it more memory"
            )
        try:
            answer: dict[str, Any] = json.loads(line)
            assert isinstance(answer, dict)
        except (ValueError, AssertionError):
            last_words[turn] = line.strip()[:300] or last_words[turn]
            continue
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        if "total" in answer:
            totals[turn] = answer["total"]
        else:
            report(ShardIndex(**answer["shard"]))
    return max(totals.values())


def _read_index(folder: Path) -> list[ShardIndex]:
    path = folder / "index.json"
    try:
        tree = read_json(path)
    except CheckpointError as error:
        raise DataError(f"{error}; {MEND}") from None
    shards = tree.get("shards")
    if not isinstance(shards, list) or _checksum(shards) != tree.get("shards_sha256"):
        raise DataError(f"{path}: this index of tokens is damaged: {MEND}")
    return [as_index(shard, path) for shard in shards]


def _checksum(shards: list[Any]) -> str:
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()


def _summed(lengths: list[Shaped[np.ndarray, "_"]]) -> Int[np.ndarray, "M"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)])


def _key(corpus: Corpus, tokenizer: Tokenizer, shard_bytes: int, keep: Bool[np.ndarray, "D"] | None) -> str:
    kept = "all" if keep is None else hashlib.sha256(f"{len(keep)}".encode() + np.packbits(keep).tobytes()).hexdigest()
    parts = (_VERSION, corpus.fingerprint(), tokenizer.fingerprint(), shard_bytes, kept)
    return hashlib.sha256("\n".join(f"{len(str(part))}:{part}" for part in parts).encode()).hexdigest()
