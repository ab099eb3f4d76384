"""Two segments of several sentences each (BERT's input).

Paper: BERT (arXiv:1810.04805), section 3.1, task 2, and appendix A.2; ALBERT (arXiv:1909.11942), section 3.1, for
swapped segments.

Sentences are taken from a document until they have the target length, and split after a random one of them. With
probability 1/2 (always, if it is a single sentence) the second segment is taken from another document instead, and the
sentences that it replaces come again in the next sequence.

Differs: a sentence that is longer than a sequence is cut into halves of one first, where the paper's code loses its
rest. With swapped segments, and without negatives, a single sentence is cut in two at its middle, where ALBERT's code
takes a random document and calls the pair ordered; a single token is left out.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pydantic

from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.inputs._cut import pieces, room_beside
from tunesmith.text.inputs._pairs import NEGATIVES, Chunks, Negatives, pair_samples
from tunesmith.text.sample import Frame
from tunesmith.text.tokens import Tokens


class SegmentPairConfig(InputConfig):
    """Settings of pairs of segments."""

    negatives: Negatives = pydantic.Field(default="random", description=NEGATIVES)
    short_probability: float = pydantic.Field(
        default=0.1, ge=0, le=1, description="Share of documents whose target length is drawn uniformly from 2 on."
    )

    @property
    def num_texts(self) -> Literal[1, 2]:
        """A pair."""
        return 2

    @property
    def second_texts(self) -> Negatives:
        """As set."""
        return self.negatives

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The sequences of one epoch."""
        room = room_beside(frame.pair_size, max_tokens=max_tokens, least=2)
        cut = pieces(tokens, longest=room, size=-(-room // 2))
        draws = stream("pairs")
        counts = np.diff(cut.documents)
        short = draws.random(len(counts)) < self.short_probability
        drawn = draws.integers(2, room, size=len(counts), endpoint=True)
        targets = np.repeat(np.where(short, drawn, room), counts)
        here = np.arange(len(cut))
        enough = np.searchsorted(cut.bounds, cut.bounds[:-1] + targets, "left")
        ends = np.minimum(enough, cut.ends)
        inside = (draws.random(len(cut)) * np.maximum(ends - here - 1, 1)).astype(np.int64)
        chunks = Chunks(here + 1 + inside, ends, targets)
        return pair_samples(tokens, frame, cut, chunks, room=room, negatives=self.negatives, draws=draws)
