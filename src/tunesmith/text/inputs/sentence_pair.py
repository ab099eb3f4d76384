"""Two single sentences (RoBERTa's SENTENCE-PAIR): short sequences, so that a batch should have more of them.

Paper: RoBERTa (arXiv:1907.11692), section 4.2.

Differs: the paper does not say how sentences that lose their neighbour are used; here they come again as the first of
the next pair, as in BERT. A single sentence at a document's end gets a random second one, or is cut in two at its
middle where there are no random ones; a single token is left out then.
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


class SentencePairConfig(InputConfig):
    """Settings of pairs of sentences."""

    negatives: Negatives = pydantic.Field(default="random", description=NEGATIVES)

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
        here = np.arange(len(cut))
        chunks = Chunks(here + 1, np.minimum(here + 2, cut.ends), np.zeros(len(cut), dtype=np.int64))
        return pair_samples(tokens, frame, cut, chunks, room=room, negatives=self.negatives, draws=stream("pairs"))
