"""BART's five noises, each a function of one text: the tokens between special ones.

Paper: BART (arXiv:1910.13461), section 2.2.
"""

import math
from dataclasses import dataclass

import numpy as np

from tunesmith.base.shapes import Bool, Int


@dataclass(frozen=True)
class Text:
    """A text on its way through the noises.

    Attributes:
        ids: Its tokens, (T,).
        noisy: Which of them are masks or random tokens by now: those are left alone, (T,).
    """

    ids: Int[np.ndarray, "T"]
    noisy: Bool[np.ndarray, "T"]


@dataclass(frozen=True)
class Masks:
    """What stands in place of tokens.

    Attributes:
        mask: The mask token.
        ordinary: What random tokens are drawn from.
        random_share: Share of masks that become random tokens.
    """

    mask: int
    ordinary: Int[np.ndarray, "N"]
    random_share: float

    def draw(self, count: int, stream: np.random.Generator) -> Int[np.ndarray, "M"]:
        """So many masks."""
        found = np.full(count, self.mask)
        if self.random_share:
            chosen = stream.random(count) < self.random_share
            found[chosen] = self.ordinary[stream.integers(len(self.ordinary), size=int(chosen.sum()))]
        return found


def permute_sentences(
    ids: Int[np.ndarray, "T"], starts: Int[np.ndarray, "S"], *, share: float, stream: np.random.Generator
) -> Int[np.ndarray, "T"]:
    """Sentence permutation: ceil(share * S) of the sentences change places among themselves.

    Args:
        ids: The text.
        starts: First token of each sentence, 0 among them.
        share: Share of the sentences.
        stream: Where it draws from.
    """
    chosen = np.sort(stream.permutation(len(starts))[: math.ceil(share * len(starts))])
    order = np.arange(len(starts))
    order[chosen] = stream.permutation(chosen)
    sentences = np.split(ids, starts[1:])
    return np.concatenate([sentences[i] for i in order])


def infill(
    text: Text,
    begins: Bool[np.ndarray, "T"],
    *,
    share: float,
    mean_span: float,
    room: int,
    masks: Masks,
    stream: np.random.Generator,
) -> Text:
    """Text infilling: spans of words become one mask each; spans of no word are masks between words.

    Args:
        text: The text.
        begins: Which tokens begin a word, the first among them, (T,).
        share: Share of the words; ceil(share * W) are taken out.
        mean_span: Mean length of a span, in words.
        room: Tokens that the text may become longer by.
        masks: What is put there.
        stream: Where it draws from.
    """
    words = np.append(np.flatnonzero(begins), len(text.ids))
    budget = math.ceil(share * (len(words) - 1))
    lengths = span_lengths(budget, mean_span=mean_span, room=room, stream=stream)
    # all ways to lay the spans, in this order, among the words that stay are equally likely
    free = len(words) - 1 - budget
    slots = np.sort(stream.choice(free + len(lengths), len(lengths), replace=False, shuffle=False))
    lengths = stream.permutation(lengths)  # the one that was cut must not always be the last
    first = slots - np.arange(len(lengths)) + np.cumsum(lengths) - lengths
    start, stop = words[first], words[first + lengths]
    change = np.zeros(len(text.ids) + 1, dtype=np.int64)
    solid = lengths > 0
    change[start[solid]] += 1
    change[stop[solid]] -= 1  # two statements: one span may begin where another ends
    kept = np.cumsum(change) == 0
    where = (np.cumsum(kept) - kept)[start]
    return Text(
        np.insert(text.ids[kept[:-1]], where, masks.draw(len(where), stream)),
        np.insert(text.noisy[kept[:-1]], where, True),
    )


def span_lengths(budget: int, *, mean_span: float, room: int, stream: np.random.Generator) -> Int[np.ndarray, "S"]:
    """Poisson lengths of spans up to the budget, the last one cut to it; spans of none as far as there is room."""
    if not budget:
        return np.zeros(0, dtype=np.int64)
    lengths = np.zeros(0, dtype=np.int64)
    while lengths.sum() < budget:
        lengths = np.concatenate([lengths, stream.poisson(mean_span, size=8 + int(1.25 * budget / mean_span))])
    total = np.cumsum(lengths)
    last = int(np.searchsorted(total, budget))
    lengths = lengths[: last + 1].copy()
    lengths[last] -= total[last] - budget
    empty = lengths == 0
    most = room + budget - int((~empty).sum())  # each other span puts one token for one or more
    return lengths[~empty | (np.cumsum(empty) <= most)]


def mask_tokens(text: Text, *, share: float, masks: Masks, stream: np.random.Generator) -> Text:
    """Token masking: ceil(share * T) of the tokens become masks."""
    places = _some(np.flatnonzero(~text.noisy), share, stream)
    ids, noisy = text.ids.copy(), text.noisy.copy()
    ids[places], noisy[places] = masks.draw(len(places), stream), True
    return Text(ids, noisy)


def delete_tokens(text: Text, *, share: float, stream: np.random.Generator) -> Text:
    """Token deletion: ceil(share * T) of the tokens are gone, but never all of them."""
    places = _some(np.flatnonzero(~text.noisy), share, stream)[: len(text.ids) - 1]
    kept = np.ones(len(text.ids), dtype=bool)
    kept[places] = False
    return Text(text.ids[kept], text.noisy[kept])


def rotate(ids: Int[np.ndarray, "T"], *, stream: np.random.Generator) -> Int[np.ndarray, "T"]:
    """Document rotation: the text begins at any of its tokens, and what stood before it comes last."""
    return np.roll(ids, -int(stream.integers(len(ids))))


def _some(places: Int[np.ndarray, "P"], share: float, stream: np.random.Generator) -> Int[np.ndarray, "M"]:
    return stream.permutation(places)[: math.ceil(share * len(places))]
