"""Whole sentences of one document, as many as fit (RoBERTa's DOC-SENTENCES).

Paper: RoBERTa (arXiv:1907.11692), section 4.2.
"""

from collections.abc import Callable

import numpy as np

from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.inputs._cut import chain, pieces, room_beside, sentences_of
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens


class DocSentencesConfig(InputConfig):
    """Settings of sequences that never cross a document's end."""

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The sequences of one epoch; a sentence that is longer than a sequence is cut."""
        room = room_beside(frame.single_size, max_tokens=max_tokens)
        cut = pieces(tokens, longest=room, size=room)
        full = np.searchsorted(cut.bounds, cut.bounds[:-1] + room, "right") - 1
        bounds = cut.bounds[np.append(chain(np.minimum(full, cut.ends)), len(cut))]
        edges = np.isin(bounds, tokens.document_starts)

        def make(i: int) -> Sample:
            sentences = sentences_of(tokens, int(bounds[i]), int(bounds[i + 1]))
            return frame.single(sentences, begins=bool(edges[i]), ends=bool(edges[i + 1]))

        return Samples(np.diff(bounds) + frame.single_size, make)
