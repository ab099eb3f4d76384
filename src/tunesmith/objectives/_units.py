"""Words, n-grams and spans of words: what masks cover together."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunesmith.base.shapes import Bool, Int
from tunesmith.text.sample import Sample

LONGEST = {"word": 1, "ngram": 3, "span": 10}
SUCCESS = 0.2
"""Parameter of SpanBERT's geometric distribution."""


@dataclass(frozen=True)
class Words:
    """The words of a sample.

    Attributes:
        starts: First place of each, in order, (W,).
        stops: One behind its last place, (W,).
        limits: First word behind the run of words that it stands in; special tokens and documents' ends are between
            runs, (W,).
    """

    starts: Int[np.ndarray, "W"]
    stops: Int[np.ndarray, "W"]
    limits: Int[np.ndarray, "W"]


def run_begins(places: Int[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
    """Which places, in order, do not follow the place before them."""
    found = np.ones(len(places), dtype=bool)
    np.not_equal(places[1:] - places[:-1], 1, out=found[1:])
    return found


def words_of(sample: Sample, free: Int[np.ndarray, "N"], *, begins: Bool[np.ndarray, "V"]) -> Words:
    """Words among the places that may be masked.

    Args:
        sample: The sample; a token that begins a sentence, or follows a special one, begins a word whatever it is.
        free: Places that may be masked, in order.
        begins: Which ids begin a word.
    """
    document = np.zeros(len(sample) + 1, dtype=bool)
    document[np.cumsum(sample.lengths)] = True
    sentence = np.zeros(len(sample), dtype=bool)
    sentence[list(sample.starts)] = True  # byte-level BPE does not mark the first word of a text
    apart = run_begins(free) | document[free]
    heads = np.flatnonzero(apart | sentence[free] | begins[sample.ids[free]])
    last = np.append(heads[1:], len(free)) - 1
    runs = np.append(np.flatnonzero(apart[heads]), len(heads))
    limits = np.repeat(runs[1:], np.diff(runs))
    return Words(free[heads], free[last] + 1, limits)


def length_probabilities(kind: Literal["word", "ngram", "span"]) -> np.ndarray:
    """Probability of 1, 2, ... words: ngram: 1/n (ALBERT, equation 4); span: geometric (SpanBERT, section 3.1)."""
    counts = np.arange(1, LONGEST[kind] + 1)
    weights = SUCCESS * (1 - SUCCESS) ** (counts - 1) if kind == "span" else 1 / counts
    return weights / weights.sum()


_UP_TO = {kind: np.cumsum(length_probabilities(kind))[:-1] for kind in ("word", "ngram", "span")}


def choose_units(
    words: Words, count: int, *, kind: Literal["word", "ngram", "span"], stream: np.random.Generator
) -> Int[np.ndarray, "P"]:
    """Places of randomly placed words or runs of words, ``count`` at most; but one word in any case.

    Words are gone through in random order; each that is not yet taken begins a run whose length is drawn. A run ends
    where the run of words does. What does not fit: a shorter run is taken (a word that does not fit is passed over);
    a word or n-gram that meets one already taken is passed over, a span merges with it.
    """
    order = stream.permutation(len(words.starts))
    lengths = np.searchsorted(_UP_TO[kind], stream.random(len(order)), "right").tolist()
    sizes = (words.stops - words.starts).tolist()
    limits = words.limits.tolist()
    taken = bytearray(len(order))
    left = count
    for first in order.tolist():
        if taken[first]:
            continue
        stop = min(first + lengths[first] + 1, limits[first])
        if kind != "span" and any(taken[first:stop]):
            continue
        for word in range(first, stop):
            if not taken[word]:
                if sizes[word] > left:
                    break
                taken[word] = 1
                left -= sizes[word]
                if not left:
                    break
        if not left:
            break
    if left == count and len(order):  # each word is longer than that
        taken[order[0]] = 1
    found = np.flatnonzero(np.frombuffer(taken, dtype=bool))
    counts = words.stops[found] - words.starts[found]
    before = np.cumsum(counts) - counts
    return np.repeat(words.starts[found] - before, counts) + np.arange(counts.sum())
