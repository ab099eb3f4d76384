"""Shards: the same bytes whoever makes them, nothing lost by a death, damage is named.

This file is also the program of a process that is killed: ``python test_shards.py CORPUS TOKENIZER CACHE WORKERS``.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from tunesmith.base.errors import DataError, SettingError, StorageError
from tunesmith.text import shard_files, verified
from tunesmith.text.corpus import Corpus, CorpusSettings, open_corpus
from tunesmith.text.sentences import split_sentences
from tunesmith.text.shards import ShardedTokens, ShardSettings, tokenised
from tunesmith.text.tokenizer import Tokenizer, load_tokenizer
from tunesmith.text.tokens import Tokens
from tunesmith.text.train_tokenizer import TokenizerSettings, train_tokenizer

WORDS = ["fox", "dog", "quick", "lazy", "Wizards", "über", "漢字", "one", "two", "jumps", "sphinx"]
ENWIKI = Path(__file__).parents[2].parent / "shared" / "data" / "corpus_enwiki" / "dev.txt"
SMALL = 2000  # bytes of a shard


def make_text(seed=0, documents=60):
    draw = random.Random(seed)
    made = []
    for _ in range(documents):
        lines = [
            " ".join(" ".join(draw.choices(WORDS, k=draw.randint(1, 9))).capitalize() + "." for _ in range(3))
            for _ in range(draw.randint(1, 4))
        ]
        made.append("\n".join(lines))
    return "\n\n".join(made) + "\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "a.txt"
    path.write_text(make_text(), encoding="utf-8")
    return open_corpus(path, CorpusSettings()).splits["train"]


@pytest.fixture(scope="module")
def tokenizers(corpus, tmp_path_factory):
    found = {}
    for style, kind in (("bert", "wordpiece"), ("gpt2", "bpe"), ("t5", "unigram")):
        found[style] = train_tokenizer(corpus, TokenizerSettings(style=style, kind=kind, vocab_size=380)).tokenizer
        found[style].save(tmp_path_factory.mktemp("tokenizers") / style)
    return found


def make(corpus, tokenizer, folder, **settings):
    given = {"shard_bytes": SMALL, **settings}
    return tokenised(corpus, tokenizer, settings=ShardSettings(**given), folder=folder)


def contents(folder):
    """All but the times at which files were verified."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "verified.json"}


@pytest.fixture(scope="module")
def made(corpus, tokenizers, tmp_path_factory):
    return make(corpus, tokenizers["gpt2"], tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("style", ["bert", "gpt2", "t5"])
def test_shards_hold_what_tokens_in_memory_hold(corpus, tokenizers, tmp_path, style):
    backend = tokenizers[style].backend

    def ids(sentence):
        return backend.encode(sentence, add_special_tokens=False).ids

    documents = [[ids(s) if style == "gpt2" else ids(s.strip()) for s in split_sentences(d.text)] for d in corpus]
    plain = Tokens(documents, num_bytes=sum(len(d.text.encode()) for d in corpus))
    found = make(corpus, tokenizers[style], tmp_path)
    assert len(list(found.folder.glob("*.tokens.bin"))) > 3
    assert found.num_tokens == plain.num_tokens
    assert found.num_documents == plain.num_documents == 60
    assert found.num_bytes == plain.num_bytes
    assert found.sentences.dtype == found.documents.dtype == np.int64
    assert found.sentences.tolist() == plain.sentences.tolist()
    assert found.documents.tolist() == plain.documents.tolist()
    assert found.document_starts.tolist() == plain.document_starts.tolist()
    assert found.take(0, found.num_tokens).tolist() == plain.take(0, plain.num_tokens).tolist()


def test_byte_level_tokens_are_those_of_the_text_as_a_whole(corpus, tokenizers, made):
    starts = made.document_starts
    backend = tokenizers["gpt2"].backend
    for document, start, stop in zip(corpus, starts, starts[1:], strict=False):
        ids = made.take(int(start), int(stop)).tolist()
        assert backend.decode(ids) == document.text
        assert ids == backend.encode(document.text).ids


@given(st.data())
def test_take_is_a_slice(made, data):
    whole = np.concatenate([np.asarray(shard) for shard in made._shards])
    start = data.draw(st.integers(0, made.num_tokens + 3))
    stop = data.draw(st.one_of(st.integers(0, made.num_tokens + 3), st.integers(start, start + 5)))
    found = made.take(start, stop)
    assert found.dtype == np.int64
    assert found.tolist() == whole[start:stop].tolist()


def test_take_at_the_joins(made):
    whole = made.take(0, made.num_tokens)
    for join in made._starts.tolist():
        for start, stop in ((join - 1, join), (join, join + 1), (join - 1, join + 1), (join, join), (0, join)):
            if start >= 0:
                assert made.take(start, stop).tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_bytes_do_not_depend_on_the_processes(corpus, tokenizers, made, tmp_path, workers):
    assert contents(make(corpus, tokenizers["gpt2"], tmp_path, workers=workers).folder) == contents(made.folder)


def test_a_vocabulary_beyond_16_bits_has_32(corpus, tokenizers, tmp_path):
    backend = Backend.from_str(tokenizers["gpt2"].fingerprint())
    backend.add_tokens([f"fox{i}" for i in range(2**16 - backend.get_vocab_size())])
    exact = Tokenizer(backend, {})
    assert exact.vocab_size == 2**16
    found = make(corpus, exact, tmp_path)
    assert found._shards[0].dtype == np.dtype("<u2")
    backend.add_tokens([next(iter(corpus)).text[:12]])
    more = Tokenizer(backend, {})
    found = make(corpus, more, tmp_path)
    assert found._shards[0].dtype == np.dtype("<u4")
    assert found.take(0, found.num_tokens).max() == 2**16


def test_what_changes_the_tokens_changes_the_folder(corpus, tokenizers, tmp_path):
    gpt2, bert = tokenizers["gpt2"], tokenizers["bert"]
    keep = np.arange(60) % 2 == 0
    path = tmp_path / "b.txt"
    path.write_bytes(corpus.files[0].read_bytes())
    folders = [
        make(corpus, gpt2, tmp_path / "c").folder,
        make(corpus, bert, tmp_path / "c").folder,
        make(corpus, gpt2, tmp_path / "c", shard_bytes=SMALL + 1).folder,
        tokenised(corpus, gpt2, settings=ShardSettings(shard_bytes=SMALL), folder=tmp_path / "c", keep=keep).folder,
        make(Corpus(corpus.files, settings=CorpusSettings(documents="lines")), gpt2, tmp_path / "c").folder,
    ]
    assert len(set(folders)) == 5
    assert make(Corpus((path,)), gpt2, tmp_path / "c", workers=1).folder == folders[0]  # the same text elsewhere
    path.write_text(path.read_text(encoding="utf-8") + "\nmore", encoding="utf-8")
    assert make(Corpus((path,)), gpt2, tmp_path / "c").folder not in folders


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_documents_that_cleaning_drops_are_left_out(corpus, tokenizers, tmp_path, workers):
    keep = np.random.default_rng(0).random(60) < 0.5
    settings = ShardSettings(shard_bytes=SMALL, workers=workers)
    found = tokenised(corpus, tokenizers["gpt2"], settings=settings, folder=tmp_path, keep=keep)
    backend = tokenizers["gpt2"].backend
    texts = [
        backend.decode(found.take(int(a), int(b)).tolist())
        for a, b in zip(found.document_starts, found.document_starts[1:], strict=False)
    ]
    assert texts == [document.text for document in corpus if keep[document.number]]


def test_documents_without_a_token_are_left_out(tokenizers, tmp_path):
    path = tmp_path / "a.jsonl"
    texts = ["fox", "\u200b\u200b", "dog"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    found = make(Corpus((path,)), tokenizers["bert"], tmp_path)
    assert (found.num_documents, found.num_empty, found.num_bytes) == (2, 1, 6)
    assert found.documents.tolist() == [0, 1, 2]
    path.write_text(json.dumps({"text": "\u200b"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="gives no token"):
        make(Corpus((path,)), tokenizers["bert"], tmp_path)


def test_a_second_call_only_opens(corpus, tokenizers, made, monkeypatch):
    monkeypatch.setattr(shard_files, "write_atomic", None)
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    again = make(corpus, tokenizers["gpt2"], made.folder.parent)
    assert again.folder == made.folder
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made.folder, tmp_path / made.folder.name))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("00001.tokens.bin", flip, "its SHA-256 is not that in its index"),
        ("00001.bounds.bin", flip, "its SHA-256 is not that in its index"),
        ("00002.tokens.bin", lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes and not"),
        ("00000.bounds.bin", Path.unlink, "this shard is missing"),
        ("index.json", flip, "index.json"),
        ("index.json", lambda path: path.write_text("{}"), "this index of tokens is damaged"),
        ("index.json", lambda path: path.write_text(path.read_text().replace('"num_tokens": ', '"num_tokens": 1')), ""),
    ],
)
def test_damage_is_named_and_mended(corpus, tokenizers, made, copy, name, damage, said):
    damage(copy / name)
    with pytest.raises(DataError) as caught:
        make(corpus, tokenizers["gpt2"], copy.parent)
    assert str(caught.value).startswith(str(copy / name))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    (copy / "index.json").unlink()  # as the message says
    assert contents(make(corpus, tokenizers["gpt2"], copy.parent).folder) == contents(made.folder)


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files whose checksums are computed."""
    found = []

    def file_hash(path):
        found.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(verified, "file_hash", file_hash)
    return found


def test_a_small_corpus_is_read_at_each_opening(made, copy, hashed):
    """Bits can rot without a write: size and time stay the same."""
    for _ in range(2):
        hashed.clear()
        ShardedTokens(copy)
        assert sorted(hashed) == sorted(path.name for path in copy.glob("*.bin"))
    before = (copy / "00001.tokens.bin").stat()
    flip(copy / "00001.tokens.bin")
    os.utime(copy / "00001.tokens.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="00001.tokens.bin: this shard is damaged: its SHA-256"):
        ShardedTokens(copy)


@pytest.fixture
def large(monkeypatch):
    """A corpus counts as large if it has a byte."""
    monkeypatch.setattr(verified, "ALWAYS_READ", 0)


@pytest.mark.usefixtures("large")
def test_a_file_of_a_large_corpus_is_hashed_once_for_its_content(made, copy, hashed):
    """Another time or size asks for it again, and so does a record that is lost or damaged."""
    (copy / "verified.json").unlink(missing_ok=True)
    ShardedTokens(copy)
    files = sorted(path.name for path in copy.glob("*.bin"))
    assert sorted(hashed) == files
    hashed.clear()
    assert ShardedTokens(copy).num_tokens == made.num_tokens
    assert hashed == []
    os.utime(copy / files[3], ns=(1, 1))
    ShardedTokens(copy)
    ShardedTokens(copy)
    assert hashed == [files[3]]
    for damage in (Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("[]")):
        hashed.clear()
        damage(copy / "verified.json")
        ShardedTokens(copy)
        assert sorted(hashed) == files


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", ["00001.tokens.bin", "00001.bounds.bin"])
def test_damage_behind_a_first_look_is_found_at_any_size(copy, name):
    ShardedTokens(copy)
    flip(copy / name)
    for _ in range(2):  # what was found wrong is not taken for verified
        with pytest.raises(DataError, match=f"{name}: this shard is damaged: its SHA-256"):
            ShardedTokens(copy)


@pytest.mark.usefixtures("large")
def test_shards_that_cannot_be_written_to_can_be_read(made, copy, monkeypatch):
    (copy / "verified.json").unlink(missing_ok=True)

    def refuse(path, tree):
        raise StorageError(f"{path}: cannot write: no permission: choose another folder")

    monkeypatch.setattr(verified, "write_json", refuse)
    assert ShardedTokens(copy).num_tokens == made.num_tokens


def test_whole_shards_are_kept(corpus, tokenizers, made, copy):
    (copy / "index.json").unlink()
    (copy / "00001.json").unlink()
    kept = (copy / "00000.tokens.bin").stat().st_ino, (copy / "00001.tokens.bin").stat().st_ino
    (copy / ".00001.json.999999.part").write_bytes(b"half")
    make(corpus, tokenizers["gpt2"], copy.parent)
    assert (copy / "00000.tokens.bin").stat().st_ino == kept[0]
    assert (copy / "00001.tokens.bin").stat().st_ino != kept[1]
    assert contents(copy) == contents(made.folder)


def test_a_full_disk_is_one_line_and_leaves_what_is_whole(corpus, tokenizers, made, tmp_path, monkeypatch):
    real = Path.write_bytes

    def write(path, data):
        if "00002" in path.name:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(StorageError, match=r"00002\.tokens\.bin: cannot write: the disk is full"):
            make(corpus, tokenizers["gpt2"], tmp_path)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        f"0000{i}.{end}" for i in (0, 1) for end in ("bounds.bin", "json", "tokens.bin")
    ]
    assert contents(make(corpus, tokenizers["gpt2"], tmp_path).folder) == contents(made.folder)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_errors_of_the_corpus_come_through(tokenizers, tmp_path, workers):
    path = tmp_path / "a.txt"
    path.write_bytes(make_text().encode() + b"\xff\n")
    with pytest.raises(DataError, match=r"a\.txt line \d+: is not UTF-8"):
        make(Corpus((path,)), tokenizers["gpt2"], tmp_path / "cache", workers=workers)


def test_a_corpus_that_changes_meanwhile_is_refused(tokenizers, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(make_text(), encoding="utf-8")

    def change(index):
        path.write_text(make_text(seed=index.number + 1), encoding="utf-8")

    with pytest.raises(DataError, match="has changed while it was read"):
        tokenised(
            Corpus((path,)),
            tokenizers["gpt2"],
            settings=ShardSettings(shard_bytes=SMALL),
            folder=tmp_path / "cache",
            progress=change,
        )
    assert not list((tmp_path / "cache").rglob("*.bin"))


def start(corpus, tokenizer, cache, workers):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    arguments = [str(corpus.files[0]), str(tokenizer), str(cache), str(workers)]
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )


def wait_for(process, lines):
    for _ in range(lines):
        process.stdout.readline()


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A corpus of some hundred shards, its tokenizer's folder, and the bytes that must come out."""
    root = tmp_path_factory.mktemp("big")
    (root / "a.txt").write_text(make_text(documents=900), encoding="utf-8")
    corpus = open_corpus(root / "a.txt", CorpusSettings()).splits["train"]
    tokenizer = train_tokenizer(corpus, TokenizerSettings(style="gpt2", kind="bpe", vocab_size=380)).tokenizer
    tokenizer.save(root / "tokenizer")
    return corpus, root / "tokenizer", contents(make(corpus, load_tokenizer(root / "tokenizer"), root / "c").folder)


def kill_and_resume(big, cache, *, workers, shards, delay):
    corpus, tokenizer, wanted = big
    process = start(corpus, tokenizer, cache, workers)
    wait_for(process, shards)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (folder,) = cache.iterdir()
    left = contents(folder)
    whole = {name for name in left if name.endswith(".json")}
    assert all(left[name] == wanted[name] for name in whole)
    found = make(corpus, load_tokenizer(tokenizer), cache, workers=0)
    assert contents(found.folder) == wanted
    return len(whole)


@pytest.mark.parametrize(("workers", "shards"), [(0, 2), pytest.param(2, 5, marks=pytest.mark.slow)])
def test_a_killed_call_goes_on(big, tmp_path, workers, shards):
    whole = kill_and_resume(big, tmp_path / "cache", workers=workers, shards=shards, delay=0.003)
    assert shards <= whole < len([name for name in big[2] if name.endswith(".json")])


@pytest.fixture
def two(big, tmp_path):
    """Starts a process that tokenises and is stopped at work, and a second one that waits for it."""
    corpus, tokenizer, _ = big
    running = []

    def begin(workers):
        first = start(corpus, tokenizer, tmp_path / "cache", workers)
        running.append(first)
        wait_for(first, 3)
        first.send_signal(signal.SIGSTOP)
        second = start(corpus, tokenizer, tmp_path / "cache", workers)
        running.append(second)
        assert second.stdout.readline() == b"waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.3)
        assert not list((tmp_path / "cache").rglob("index.json"))
        return first, second, tmp_path / "cache"

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


BOTH = [0, pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("workers", BOTH)
def test_a_second_process_waits_for_the_first(big, two, workers):
    first, second, cache = two(workers)
    first.send_signal(signal.SIGCONT)
    heard = second.stdout.read()
    assert (first.wait(), second.wait()) == (0, 0)
    assert heard == b""  # it waited once, and made nothing itself
    (folder,) = cache.iterdir()
    assert contents(folder) == big[2]


@pytest.mark.parametrize("workers", BOTH)
def test_a_second_process_takes_over_from_one_that_was_killed(big, two, workers):
    first, second, cache = two(workers)
    first.kill()
    first.wait()
    heard = second.stdout.read().splitlines()
    assert second.wait() == 0
    assert sorted(map(int, heard)) == list(range(sum(name.endswith(".bounds.bin") for name in big[2])))
    (folder,) = cache.iterdir()
    assert contents(folder) == big[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_call_killed_at_any_moment_goes_on(big, tmp_path, seed):
    draw = random.Random(seed)
    kill_and_resume(big, tmp_path / "cache", workers=seed % 3, shards=draw.randint(1, 90), delay=draw.random() * 0.05)


def test_a_worker_that_is_killed_is_one_line(big, tmp_path):
    corpus, tokenizer, wanted = big

    def kill(index):
        if index.number > 3:
            for child in psutil.Process().children():
                child.kill()

    settings = ShardSettings(shard_bytes=SMALL, workers=1)
    with pytest.raises(SettingError, match=r"^data\.workers: a process that tokenises was killed by signal 9"):
        tokenised(corpus, load_tokenizer(tokenizer), settings=settings, folder=tmp_path, progress=kill)
    assert contents(make(corpus, load_tokenizer(tokenizer), tmp_path).folder) == wanted


@pytest.mark.skipif(not ENWIKI.exists(), reason="needs the shared corpora")
def test_real_text(tmp_path):
    corpus = open_corpus(ENWIKI, CorpusSettings()).splits["train"]
    settings = TokenizerSettings(style="gpt2", kind="bpe", vocab_size=2000, max_characters=200_000)
    tokenizer = train_tokenizer(corpus, settings).tokenizer
    found = make(corpus, tokenizer, tmp_path, shard_bytes=100_000)
    documents = list(corpus)
    assert found.num_documents == len(documents) > 100
    assert found.num_bytes == sum(len(document.text.encode()) for document in documents)
    starts = found.document_starts
    for document in documents[::37]:
        ids = found.take(int(starts[document.number]), int(starts[document.number + 1])).tolist()
        assert tokenizer.backend.decode(ids) == document.text
        assert ids == tokenizer.backend.encode(document.text).ids


if __name__ == "__main__":
    path, folder, cache, workers = sys.argv[1:]
    tokenised(
        Corpus((Path(path),)),
        load_tokenizer(Path(folder)),
        settings=ShardSettings(shard_bytes=SMALL, workers=int(workers)),
        folder=Path(cache),
        progress=lambda index: print(index.number, flush=True),
        waiting=lambda: print("waiting", flush=True),
    )
