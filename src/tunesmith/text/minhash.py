"""Near duplicates by MinHash signatures of word shingles and locality-sensitive hashing.

Paper: On the resemblance and containment of documents (Broder, 1997); bands as in Mining of Massive Datasets,
section 3.4.
"""

import functools
import re
import zlib
from dataclasses import dataclass

import numpy as np

from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Shaped

SHINGLE_WORDS = 5
NUM_HASHES = 128
_FOUND = 0.94  # of the pairs that are just similar enough, so many at least shall be compared
_CHUNK = 4096  # shingles hashed at once

# Scripts that put no space between words (Thai to Khmer, kana, Han): each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")

_BASE = np.uint64(0x9E3779B97F4A7C15)


def words_of(text: str) -> list[str]:
    """Words in small letters; in scripts without spaces, characters."""
    return _WORD.findall(text.lower())


def shingles_of(words: list[str]) -> Shaped[np.ndarray, "N"]:
    """Hashes of each five consecutive words, in order; of all words where there are fewer."""
    codes = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
    size = min(SHINGLE_WORDS, len(codes))
    if not size:
        return np.zeros(0, np.uint64)
    found = np.zeros(len(codes) - size + 1, np.uint64)
    for i in range(size):  # a polynomial in the base, modulo 2^64
        found = found * _BASE + codes[i : len(codes) - size + 1 + i] + np.uint64(1)
    return _mixed(found)


def signature(shingles: Shaped[np.ndarray, "N"]) -> Shaped[np.ndarray, "K"]:
    """MinHash signature: two documents agree in a place with a probability that is their Jaccard similarity."""
    lowest = np.full(NUM_HASHES, 2**32 - 1, np.uint32)
    unique = np.unique(shingles)
    for start in range(0, len(unique), _CHUNK):
        hashes = (unique[start : start + _CHUNK, None] * _multipliers()) >> np.uint64(32)
        lowest = np.minimum(lowest, hashes.min(axis=0).astype(np.uint32))
    return lowest


@dataclass(frozen=True)
class Near:
    """Documents that resemble an earlier one.

    Attributes:
        documents: Which, in order.
        earlier: The earlier document that each resembles.
    """

    documents: Shaped[np.ndarray, "N"]
    earlier: Shaped[np.ndarray, "N"]


def near_duplicates(signatures: Shaped[np.ndarray, "D K"], *, similarity: float) -> Near:
    """Documents whose signature agrees with that of an earlier one in a share ``similarity`` or more.

    Compared are documents that agree in all hashes of a band: each with the first such one and with the one before.
    """
    pairs = [np.zeros((0, 2), np.int64)]
    rows = band_rows(similarity)
    for band in range(NUM_HASHES // rows):
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        _, groups = np.unique(part, axis=0, return_inverse=True)
        groups = groups.reshape(-1)
        order = np.argsort(groups, kind="stable")
        same = groups[order[1:]] == groups[order[:-1]]
        begins = np.concatenate([[True], ~same])[: len(order)]
        firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
        later = np.flatnonzero(~begins)
        pairs.append(np.stack([order[later], order[later - 1]], axis=1))
        pairs.append(np.stack([order[later], firsts[later]], axis=1))
    candidates = np.unique(np.concatenate(pairs), axis=0)
    agree = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
        for part in np.array_split(candidates, len(candidates) // _CHUNK + 1)
    ]
    found = candidates[np.concatenate(agree) >= similarity]
    documents, firsts = np.unique(found[:, 0], return_index=True)  # pairs are sorted: the earliest comes first
    return Near(documents, found[firsts, 1])


def band_rows(similarity: float) -> int:
    """Hashes in a band, at most 8: the more, the fewer pairs are compared; as many as find pairs of this similarity.

    A pair of Jaccard similarity $s$ agrees in all $r$ hashes of one of $b$ bands with probability $1 - (1 - s^r)^b$:
    at 0.8 there are 16 bands of 8, which find 0.95 of such pairs, and 0.06 of those of 0.5.
    """
    rows = 8
    while rows > 1 and 1 - (1 - similarity**rows) ** (NUM_HASHES // rows) < _FOUND:
        rows //= 2
    return rows


@functools.cache
def _multipliers() -> Shaped[np.ndarray, "K"]:
    """Odd multipliers, one for each hash."""
    drawn = numpy_stream("minhash", NUM_HASHES).integers(0, 2**63, NUM_HASHES, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)


def _mixed(x: Shaped[np.ndarray, "N"]) -> Shaped[np.ndarray, "N"]:
    """Spread the bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
