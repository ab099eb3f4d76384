"""Samples and a vocabulary made by hand: each token of a text is another, so that whatever moves can be followed."""

import math

import numpy as np

from tunesmith.base.random import numpy_stream
from tunesmith.text.sample import Drawn, Frame, Sample, Vocabulary, joined

PAD, END, BEGIN, MASK, BETWEEN = 0, 1, 2, 3, 4
SENTINELS = tuple(range(199, 99, -1))
FIRST = 200
"""First ordinary token."""
FRAMES = {
    "t5": Frame((), (END,), (END,), (END,), second=0),
    "bart": Frame((BEGIN,), (END, END), (END,), (END,), second=0),
    "xlnet": Frame((), (BETWEEN,), (BETWEEN, BEGIN), (BETWEEN, BEGIN)),
}


def vocabulary(size, *, frame="t5", word=1, **changed):
    """A vocabulary in which every ``word``-th ordinary token begins a word."""
    special = np.arange(size) < FIRST
    fields = {
        "size": size,
        "special": special,
        "begins_word": special | ((np.arange(size) - FIRST) % word == 0),
        "mask": MASK,
        "pad": PAD,
        "begin": BEGIN,
        "end": END,
        "sentinels": SENTINELS,
        "sentence_ends": np.zeros(size, dtype=bool),
        "frame": FRAMES[frame],
    }
    return Vocabulary(**(fields | changed))


def text(*sentences, first=FIRST):
    """Sentences of so many tokens, which count up."""
    ends = first + np.cumsum([0, *sentences])
    return [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def single(*sentences, frame="t5", first=FIRST) -> Sample:
    """A sample of one text."""
    return FRAMES[frame].single(text(*sentences, first=first))


def couple(one, other, *, frame="t5") -> Sample:
    """A sample of two texts."""
    return FRAMES[frame].pair(text(*one), text(*other, first=FIRST + sum(one)), label=None)


def row(*lengths, frame="t5") -> Sample:
    """Texts that must not see each other, in one row."""
    firsts = FIRST + np.cumsum([0, *lengths])
    return joined([single(n, frame=frame, first=int(first)) for n, first in zip(lengths, firsts, strict=False)])


def drawn(*samples: Sample, seed: int = 0) -> list[Drawn]:
    """Samples with streams of their own."""
    return [Drawn(sample, numpy_stream("test", seed, i)) for i, sample in enumerate(samples)]


def parts(rows) -> list[np.ndarray]:
    """The documents of packed rows."""
    assert rows.layout.num_tokens == sum(rows.layout.lengths)
    return np.split(rows.token_ids[: rows.layout.num_tokens].numpy(), np.cumsum(rows.layout.lengths)[:-1])


def labels(batch, rows) -> list[np.ndarray]:
    """The labels of each document of packed rows."""
    owners = rows.layout.owners[batch.rows].numpy()
    return [batch.labels.numpy()[owners == i] for i in range(len(rows.layout.lengths))]


def likely(counts, expected=None) -> bool:
    """Whether counts agree with what is expected (the same of each), by chi-square."""
    import scipy.stats

    counts = np.asarray(counts)
    if expected is not None:
        expected = np.asarray(expected) * counts.sum() / np.sum(expected)
    return scipy.stats.chisquare(counts, expected).pvalue > 1e-4


def ceil(share: str, count: int) -> int:
    """The share of a count, rounded up, in exact numbers."""
    from fractions import Fraction

    return math.ceil(Fraction(share) * count)
