"""Pairs of texts for next-sentence and sentence-order questions, planned for a whole epoch at once.

What is drawn for a chunk is keyed by the sentence that it begins with, so that everything but the walk from chunk to
chunk is vectorised.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Int
from tunesmith.text.inputs import Samples
from tunesmith.text.inputs._cut import Pieces, chain, sentences_of
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens

Negatives = Literal["none", "random", "swapped"]
NEGATIVES = (
    "Second texts: none: always what follows; random: half are of another document (label 1, for objective nsp); "
    "swapped: half of the pairs are in the wrong order (label 1, for objective sop)."
)


@dataclass(frozen=True)
class Chunks:
    """The chunk that begins at each piece, were one to begin there.

    Attributes:
        splits: First piece of its second text.
        ends: First piece behind it.
        targets: Tokens that both texts should have together; a random second text ends as soon as they do.
    """

    splits: Int[np.ndarray, "P"]
    ends: Int[np.ndarray, "P"]
    targets: Int[np.ndarray, "P"]


def pair_samples(
    tokens: Tokens,
    frame: Frame,
    cut: Pieces,
    chunks: Chunks,
    *,
    room: int,
    negatives: Negatives,
    draws: np.random.Generator,
) -> Samples:
    """Sequences of two texts.

    Args:
        tokens: The documents.
        frame: Special tokens around texts.
        cut: Their sentences.
        chunks: Sentences that come together.
        room: Tokens of both texts at most; what is too much goes from the longer one, front or back at random.
        negatives: What the second text is.
        draws: Where random numbers come from.

    Raises:
        SettingError: There is no other document to take a second text from.
    """
    asked = draws.random(len(cut)) < 0.5  # whether a chunk gets the other answer
    if negatives == "random":
        asked |= chunks.ends == chunks.splits  # there is nothing behind a single sentence
        at = chain(np.where(asked, chunks.splits, chunks.ends))  # what is not used comes again
    else:
        at = chain(chunks.ends)
    asked = asked[at]
    firsts = cut.bounds[np.stack([at, chunks.splits[at]], 1)]
    seconds = cut.bounds[np.stack([chunks.splits[at], chunks.ends[at]], 1)]
    if negatives == "random":
        missing = chunks.targets[at] - (firsts[:, 1] - firsts[:, 0])
        seconds[asked] = _elsewhere(cut, at[asked], missing[asked], draws)
    else:
        alone = seconds[:, 0] == seconds[:, 1]
        middle = (firsts.sum(1) + 1) // 2
        seconds[alone, 0] = firsts[alone, 1] = middle[alone]
        whole = seconds[:, 0] < seconds[:, 1]  # one token cannot be cut in two
        firsts, seconds, asked = firsts[whole], seconds[whole], asked[whole]
    if negatives == "swapped":
        firsts, seconds = np.where(asked[:, None], seconds, firsts), np.where(asked[:, None], firsts, seconds)
    _truncate(firsts, seconds, room, draws)
    lengths = (firsts[:, 1] - firsts[:, 0]) + (seconds[:, 1] - seconds[:, 0]) + frame.pair_size

    def make(i: int) -> Sample:
        texts = (sentences_of(tokens, *span) for span in (firsts[i].tolist(), seconds[i].tolist()))
        return frame.pair(*texts, label=None if negatives == "none" else int(asked[i]))

    return Samples(lengths, make)


def _elsewhere(
    cut: Pieces, at: Int[np.ndarray, "N"], missing: Int[np.ndarray, "N"], draws: np.random.Generator
) -> Int[np.ndarray, "N 2"]:
    """Token ranges in another document, drawn uniformly, from a sentence of it, drawn uniformly."""
    others = len(cut.documents) - 2
    if len(at) and others < 1:
        raise SettingError("input.negatives: random takes second texts from other documents, but there is only one")
    own = np.searchsorted(cut.documents, at, "right") - 1
    document = draws.integers(max(others, 1), size=len(at))
    document += document >= own
    start, end = cut.documents[document], cut.documents[document + 1]
    begin = start + (draws.random(len(at)) * (end - start)).astype(np.int64)
    enough = np.searchsorted(cut.bounds, cut.bounds[begin] + missing, "left")
    return np.stack([cut.bounds[begin], cut.bounds[np.clip(enough, begin + 1, end)]], 1)


def _truncate(
    firsts: Int[np.ndarray, "N 2"], seconds: Int[np.ndarray, "N 2"], room: int, draws: np.random.Generator
) -> None:
    """Take from the longer text, the second if they are equal, token by token, until both fit; in place.

    So a text that is at most half of the room is left whole, and two longer ones end up with half each.
    """
    first, second = firsts[:, 1] - firsts[:, 0], seconds[:, 1] - seconds[:, 0]
    keep = np.where(first + second > room, np.minimum(first, np.maximum(-(-room // 2), room - second)), first)
    for spans, lost in ((firsts, first - keep), (seconds, np.maximum(second - (room - keep), 0))):
        front = draws.binomial(lost, 0.5)
        spans[:, 0] += front
        spans[:, 1] -= lost - front
