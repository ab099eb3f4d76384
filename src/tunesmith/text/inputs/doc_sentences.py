"""Whole sentences of one document, as many as fit (RoBERTa's DOC-SENTENCES).

Paper: RoBERTa (arXiv:1907.11692), section 4.2.
"""

from collections.abc import Callable

import numpy as np

from tunesmith.base.errors import SettingError
from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens


class DocSentencesConfig(InputConfig):
    """Settings of sequences that never cross a document's end."""

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The sequences of one epoch; a sentence that is longer than a sequence is cut."""
        room = max_tokens - frame.single_size
        if room < 1:
            raise SettingError(
                f"data.max_tokens: must leave room beside {frame.single_size} special tokens, got {max_tokens}"
            )
        ranges = _cut(tokens, room)
        lengths = np.array([stop - start + frame.single_size for start, stop in ranges], dtype=np.int64)

        def make(i: int) -> Sample:
            start, stop = ranges[i]
            inner = tokens.sentences[np.searchsorted(tokens.sentences, start, "right") :]
            cuts = [start, *(int(c) for c in inner[: np.searchsorted(inner, stop)]), stop]
            return frame.single([tokens.take(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if b > a])

        return Samples(lengths, make)


def _cut(tokens: Tokens, room: int) -> list[tuple[int, int]]:
    """Token ranges of at most ``room`` tokens, each from whole sentences of one document where they fit."""
    found: list[tuple[int, int]] = []
    for first, last in zip(tokens.documents, tokens.documents[1:], strict=False):
        ends = tokens.sentences[first : last + 1]
        start = int(ends[0])
        while start < ends[-1]:
            fitting = int(ends[np.searchsorted(ends, start + room, "right") - 1])
            stop = fitting if fitting > start else start + room
            found.append((start, stop))
            start = stop
    return found
