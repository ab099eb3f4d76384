"""A corpus is made ready once, whoever asks for it at the same time."""

import contextlib
import json
import threading

import pytest
from tiny_pretraining import Listener, recipe, write_corpus

from tunesmith.base.files import locked
from tunesmith.recipes.corpus import make_ready
from tunesmith.recipes.pretrain import pretrain
from tunesmith.recipes.pretrain_settings import pretrain_settings
from tunesmith.text.corpus import Corpus

WAITING = "waiting for another process that tokenises this corpus"


def test_who_waits_for_another_process_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    settings = pretrain_settings(str(recipe(tmp_path, "mlm")))
    corpus = write_corpus(tmp_path / "corpus.txt")
    made = make_ready(corpus, tmp_path / "run", settings, Listener())
    for place in (made.train.folder, made.dev.folder):
        (place / "index.json").unlink()
    others = [contextlib.ExitStack(), contextlib.ExitStack()]
    for other, tokens in zip(others, (made.train, made.dev), strict=True):
        other.enter_context(locked(tokens.folder))

    class Freeing(Listener):
        def note(self, text):
            super().note(text)
            if text == WAITING:
                for number, other in enumerate(others):
                    threading.Timer(0.1 + 0.6 * number, other.close).start()

    listener = Freeing()
    again = make_ready(corpus, tmp_path / "run", settings, listener)
    assert listener.notes.count(WAITING) == 1
    assert again.train.take(0, 10**6).tolist() == made.train.take(0, 10**6).tolist()


@pytest.mark.parametrize(("documents", "share", "held"), [(2, 0.01, 1), (3, 0.01, 1), (4, 0.01, 2), (24, 0.1, 2)])
def test_two_documents_are_held_back_where_as_many_are_left(documents, share, held, tmp_path):
    """One has no other document to take a second text from."""
    settings = pretrain_settings(str(recipe(tmp_path, "nsp")), {"data": {"dev_share": share}})
    corpus = write_corpus(tmp_path / "corpus.txt", documents=documents)
    made = make_ready(corpus, tmp_path / "run", settings, Listener())
    assert (made.dev.num_documents, made.train.num_documents) == (held, documents - held)


CLEANING = {"data.cleaning.min_characters": 30, "data.cleaning.max_repeated_ngrams": 1}


def test_what_cleaning_drops_is_kept_with_the_run(tmp_path):
    """With its reasons and examples, as a file and in the report."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    corpus.write_text(f"{corpus.read_text()}\n<b>Too short</b>\n\n{corpus.read_text()}")
    settings = {"train.max_steps": 1, "train.batch_size": 2, **CLEANING}
    pretrain(str(recipe(tmp_path, "mlm")), corpus, out=tmp_path / "run", settings=settings)
    said = json.loads((tmp_path / "run" / "cleaning.json").read_text())
    assert (said["documents"], said["kept"]) == (49, 24)
    assert {reason: drop["count"] for reason, drop in said["dropped"].items()} == {"too short": 1, "copies": 24}
    (example,) = said["dropped"]["too short"]["examples"]
    assert example == {"where": f"{corpus} line 97", "excerpt": "<b>Too short</b>", "like": None}
    page = (tmp_path / "run" / "report.html").read_text()
    for part in (">Cleaning<", "kept 24 of 49", "copies", "line 97", "&lt;b&gt;Too short"):
        assert part in page
    assert "<b>Too short" not in page


def test_without_cleaning_the_report_is_silent_on_it(tmp_path):
    settings = {"train.max_steps": 1, "train.batch_size": 2}
    pretrain(
        str(recipe(tmp_path, "mlm")), write_corpus(tmp_path / "corpus.txt"), out=tmp_path / "run", settings=settings
    )
    assert not (tmp_path / "run" / "cleaning.json").exists()
    assert "Cleaning" not in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture
def read(monkeypatch, tmp_path):
    """The documents that are read, one after the other; the cache is empty at first."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    real, found = Corpus.__iter__, []

    def documents(corpus):
        for document in real(corpus):
            found.append(document.number)
            yield document

    monkeypatch.setattr(Corpus, "__iter__", documents)
    return found


@pytest.mark.parametrize("cleaning", [None, {"min_characters": 30, "max_repeated_ngrams": 1}])
def test_a_corpus_is_judged_and_divided_once(cleaning, read, tmp_path):
    """Whoever comes later reads only its first document, as a test, and says the same."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    corpus.write_text(f"{corpus.read_text()}\nToo short\n")
    tree = {"tokenizer": None, "data": {"cleaning": cleaning}}
    settings = pretrain_settings(str(recipe(tmp_path, "mlm")), tree)
    first, again = Listener(), Listener()
    made = make_ready(corpus, tmp_path / "run", settings, first)
    read.clear()
    later = make_ready(corpus, tmp_path / "run", settings, again)
    assert read == [0]
    assert later.train.folder == made.train.folder
    assert later.dev.folder == made.dev.folder
    assert "cleaning" not in again.notes
    said = [[note for note in one.notes if "kept" in note or "held back" in note] for one in (first, again)]
    assert said[0] == said[1] != []
    if cleaning is not None:
        assert made.cleaning is not None
        assert later.cleaning is not None
        assert later.cleaning.tree() == made.cleaning.tree()
        assert later.cleaning.num_kept == 24


def test_other_settings_and_damage_judge_anew(read, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")

    def kept(fewest):
        tree = {"data": {"cleaning": {"min_characters": fewest, "max_repeated_ngrams": 1}}}
        cleaning = make_ready(
            corpus, tmp_path / f"run{fewest}", pretrain_settings(str(recipe(tmp_path, "mlm")), tree), Listener()
        ).cleaning
        assert cleaning is not None
        return cleaning.keep.tolist()

    loose, strict = kept(30), kept(75)
    assert sum(loose) > sum(strict)
    for path in (tmp_path / "cache" / "kept").iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 0x80
        path.write_bytes(data)
    assert (kept(30), kept(75)) == (loose, strict)
    assert not list((tmp_path / "cache").rglob("*.part"))
