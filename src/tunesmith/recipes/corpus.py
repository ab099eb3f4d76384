"""A corpus made ready for pretraining: splits, cleaning, a tokenizer, shards of token ids."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunesmith.base.errors import DataError
from tunesmith.base.files import write_json
from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Bool
from tunesmith.recipes.corpus_record import check_corpus
from tunesmith.recipes.kept import kept_documents
from tunesmith.recipes.listener import Listener
from tunesmith.recipes.open import open_tokenizer
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.recipes.start import tokenizer_of
from tunesmith.text.cleaning import Cleaned
from tunesmith.text.corpus import Corpus, CorpusSettings, Document, open_corpus
from tunesmith.text.sample import Vocabulary, vocabulary_of
from tunesmith.text.shards import ShardedTokens, ShardSettings, tokenised
from tunesmith.text.tokenizer import Tokenizer, load_tokenizer
from tunesmith.text.train_tokenizer import train_tokenizer

CLEANING = "cleaning.json"
Keep = Bool[np.ndarray, "D"]


@dataclass(frozen=True)
class Ready:
    """A corpus as token ids.

    Attributes:
        train: Documents to learn from.
        dev: Documents held back.
        tokenizer: Made them.
        vocabulary: What it knows.
        cleaning: What was dropped before, and why; None where cleaning was not asked for.
    """

    train: ShardedTokens
    dev: ShardedTokens
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    cleaning: Cleaned | None


def make_ready(source: str | Path, out: Path, settings: PretrainSettings, listener: Listener) -> Ready:
    """Read a corpus, clean it where that is asked for, and tokenise it; what was made before is taken from the cache.

    Args:
        source: File, folder or hub id.
        out: Folder of the run: a tokenizer that is trained, what the corpus was and what was dropped are kept in it.
        settings: All settings.
        listener: Hears what is done.

    Raises:
        UserError: The corpus or the tokenizer cannot be used, or the run began with another corpus; one line says why.
    """
    # only what the text depends on: the cache is keyed by it, and other processes read it
    reading = CorpusSettings(**{name: getattr(settings.data, name) for name in CorpusSettings.model_fields})
    corpora = open_corpus(source, reading)
    if corpora.ignored:
        listener.note(f"corpus: not read: {', '.join(corpora.ignored)}")
    if "train" not in corpora.splits:
        raise DataError(f"{source}: holds no train split: name a file, or a folder with a file that begins with train")
    check_corpus(source, corpora.splits, out)
    train = corpora.splits["train"]
    cleaning = _cleaned(train, out, settings, listener)
    kept = None if cleaning is None else cleaning.keep
    if "dev" in corpora.splits:
        dev, kept_of_dev = corpora.splits["dev"], None
    else:
        every = kept if kept is not None else kept_documents(train, None, begins=lambda: None).keep
        held = _held_back(train, every, settings, listener)
        dev, kept_of_dev = train, held
        kept = ~held if kept is None else kept & ~held
    tokenizer = _tokenizer(train, kept, out, settings, listener)
    shards = ShardSettings(workers=settings.data.workers)
    listener.stage("tokenising")

    @functools.cache  # said once, though there are two splits to wait for
    def waiting() -> None:
        listener.note("waiting for another process that tokenises this corpus")

    return Ready(
        train=tokenised(train, tokenizer, settings=shards, keep=kept, waiting=waiting),
        dev=tokenised(dev, tokenizer, settings=shards, keep=kept_of_dev, waiting=waiting),
        tokenizer=tokenizer,
        vocabulary=vocabulary_of(tokenizer),
        cleaning=cleaning,
    )


class _Kept:
    """The documents of a corpus that are kept; as often as they are asked for."""

    def __init__(self, corpus: Corpus, kept: Keep | None):
        self.corpus, self.kept = corpus, kept

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self.corpus if self.kept is None or self.kept[document.number])


def _cleaned(corpus: Corpus, out: Path, settings: PretrainSettings, listener: Listener) -> Cleaned | None:
    """Which documents are of use; what is dropped stands in the run's folder. None: all are."""
    if settings.data.cleaning is None:
        return None
    found = kept_documents(corpus, settings.data.cleaning, begins=lambda: listener.stage("cleaning"))
    listener.note(found.summary())
    if not (out / CLEANING).exists():  # by this run, or by the process that leads it
        write_json(out / CLEANING, found.tree())
    return found


def _held_back(corpus: Corpus, kept: Keep, settings: PretrainSettings, listener: Listener) -> Keep:
    """A random part of the documents, the same each time, as dev split.

    They are two or more where as many are left: second texts are taken from other documents of the same split.
    """
    usable = np.flatnonzero(kept)
    if len(usable) < 2:
        raise DataError(
            f"{corpus.name}: is one document, so none can be held back: give a folder with train and dev files, or "
            "split it by data.documents=lines"
        )
    least = 2 if len(usable) >= 4 else 1
    count = min(len(usable) - 1, max(least, round(settings.data.dev_share * len(usable))))
    listener.note(f"corpus: no dev split, so {count} of {len(usable)} documents are held back")
    held = np.zeros(len(kept), dtype=bool)
    held[numpy_stream("held back").permutation(usable)[:count]] = True
    return held


def _tokenizer(
    corpus: Corpus, kept: Keep | None, out: Path, settings: PretrainSettings, listener: Listener
) -> Tokenizer:
    """The tokenizer that is given, or one trained on the corpus and kept in the run's folder."""
    given = tokenizer_of(settings)
    if given is not None:
        return open_tokenizer(given)
    made = load_tokenizer(out)
    if made is not None:
        return made
    listener.stage("training a tokenizer")
    trained = train_tokenizer(_Kept(corpus, kept), settings.vocabulary, max_tokens=settings.data.max_tokens)
    listener.note(trained.summary())
    trained.tokenizer.save(out)
    return trained.tokenizer
