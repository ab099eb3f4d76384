"""Whole sentences, as many as fit, over the ends of documents (RoBERTa's FULL-SENTENCES).

Paper: RoBERTa (arXiv:1907.11692), section 4.2.
"""

from collections.abc import Callable

import numpy as np

from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.inputs._cut import chain, pieces, room_beside, sentences_of
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens


class FullSentencesConfig(InputConfig):
    """Settings of sequences that go on with the next document, a separator between the two."""

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The sequences of one epoch; documents follow each other in an order that is its own."""
        room = room_beside(frame.single_size, max_tokens=max_tokens)
        cut = pieces(tokens, longest=room, size=room)
        order = stream("order").permutation(len(cut.documents) - 1)
        counts = np.diff(cut.documents)[order]
        first = np.cumsum(counts) - counts  # where each document begins in the new order of pieces
        which = np.repeat(cut.documents[:-1][order] - first, counts) + np.arange(len(cut))
        begins = np.zeros(len(cut), dtype=np.int64)
        begins[first] = 1
        starts = cut.bounds[which]
        lengths = cut.bounds[which + 1] - starts
        # a document costs one separator more, unless it begins the sequence
        before = np.concatenate([[0], np.cumsum(lengths + begins)])
        at = chain(np.searchsorted(before, before[:-1] + begins + room, "right") - 1)
        until = np.append(at[1:], len(cut)) if len(at) else at
        sizes = before[until] - before[at] - begins[at]

        def make(i: int) -> Sample:
            a, b = int(at[i]), int(until[i])
            cuts = [a, *(np.flatnonzero(begins[a + 1 : b]) + a + 1).tolist(), b]
            spans = ((starts[k], starts[m - 1] + lengths[m - 1]) for k, m in zip(cuts, cuts[1:], strict=False))
            return frame.several(
                [sentences_of(tokens, int(start), int(stop)) for start, stop in spans],
                begins=bool(begins[a]),
                ends=b == len(cut) or bool(begins[b]),
            )

        return Samples(sizes + frame.single_size, make)
