"""Where sequences may be cut, and how they are filled: vectorised, because a corpus has millions of sentences."""

from dataclasses import dataclass

import numpy as np

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Int
from tunesmith.text.tokens import Tokens


@dataclass(frozen=True)
class Pieces:
    """Sentences, of which long ones are cut, one behind the other.

    Attributes:
        bounds: First token of each piece, and the number of tokens; (P + 1,).
        documents: First piece of each document, and the number of pieces; documents without tokens are left out.
    """

    bounds: Int[np.ndarray, "P"]
    documents: Int[np.ndarray, "D"]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def ends(self) -> Int[np.ndarray, "P"]:
        """First piece behind the document of each piece."""
        return np.repeat(self.documents[1:], np.diff(self.documents))


def pieces(tokens: Tokens, *, longest: int, size: int) -> Pieces:
    """Sentences as they are; one of more than ``longest`` tokens as pieces of ``size`` tokens and what is left."""
    lengths = np.diff(tokens.sentences)
    counts = np.where(lengths > longest, -(-lengths // size), np.minimum(lengths, 1))
    before = np.concatenate([[0], np.cumsum(counts)])
    inside = np.arange(before[-1]) - np.repeat(before[:-1], counts)
    bounds = np.append(np.repeat(tokens.sentences[:-1], counts) + inside * size, tokens.num_tokens)
    return Pieces(bounds.astype(np.int64), np.unique(before[tokens.documents]))


def chain(following: Int[np.ndarray, "P"]) -> Int[np.ndarray, "N"]:
    """The places that are met on the way from place 0, given where each leads to, which is always further on."""
    assert (following > np.arange(len(following))).all()
    step = following.tolist()  # a list: reading single elements of an array is many times slower
    found, at = [], 0
    while at < len(step):
        found.append(at)
        at = step[at]
    return np.array(found, dtype=np.int64)


def sentences_of(tokens: Tokens, start: int, stop: int) -> list[Int[np.ndarray, "_"]]:
    """Tokens from one place to another, sentence by sentence; the first and the last may be parts of one."""
    first = int(np.searchsorted(tokens.sentences, start, "right"))
    last = int(np.searchsorted(tokens.sentences, stop, "left"))
    cuts = [start, *tokens.sentences[first:last].tolist(), stop]
    ids = tokens.take(start, stop)
    return [ids[a - start : b - start] for a, b in zip(cuts, cuts[1:], strict=False) if b > a]


def room_beside(special: int, *, max_tokens: int, least: int = 1) -> int:
    """Tokens of text in a sequence.

    Args:
        special: Special tokens in it.
        max_tokens: Longest sequence.
        least: Tokens of text that there must be room for.

    Raises:
        SettingError: There is not.
    """
    room = max_tokens - special
    if room < least:
        raise SettingError(
            f"data.max_tokens: must be at least {special + least}: {special} special tokens and {least} of the text, "
            f"got {max_tokens}"
        )
    return room
