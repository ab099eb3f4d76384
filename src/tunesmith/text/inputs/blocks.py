"""Blocks of one length, cut from all documents as one stream of tokens with a separator between them (GPT-2).

Paper: Language Models are Unsupervised Multitask Learners (GPT-2, 2019), section 2.

The stream is a ring that each epoch cuts at another place, so that the tokens that fill no block are others each time.
Text of neighbouring documents sees each other; ``input=packed`` keeps them apart.
"""

from collections.abc import Callable

import numpy as np

from tunesmith.base.errors import SettingError
from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.sample import Frame, Sample
from tunesmith.text.tokens import Tokens


class BlocksConfig(InputConfig):
    """Settings of blocks."""

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The blocks of one epoch, each of exactly ``max_tokens``.

        Raises:
            SettingError: A block has less than two tokens, or more than there are.
        """
        ends = np.unique(tokens.document_starts)[1:]  # documents without tokens are left out
        separators = ends + np.arange(len(ends))  # where they stand in the stream
        total = tokens.num_tokens + len(ends)
        if not 2 <= max_tokens <= total:
            raise SettingError(
                f"data.max_tokens: input=blocks must have blocks of 2 tokens or more and at most the {total} of the "
                f"text, got {max_tokens}"
            )
        begin = int(stream("offset").integers(total))
        inner = tokens.sentences[:-1][np.diff(tokens.sentences) > 0]

        def part(start: int, stop: int) -> Sample:
            """A part of the stream that does not go over its end."""
            a, b = np.searchsorted(separators, (start, stop)).tolist()  # separators before it, and up to its end
            first, last = start - a, stop - b
            behind = ends[a:b] - first
            found = slice(*np.searchsorted(inner, (first, last)).tolist())
            starts = inner[found]
            places = starts - first + np.searchsorted(ends[a:b], starts, "right")
            text = last > first and not (a < b and separators[a] == start)
            cut = [0] if text and not (len(places) and places[0] == 0) else []
            special = np.zeros(stop - start, dtype=bool)
            special[separators[a:b] - start] = True
            return Sample(
                ids=np.insert(tokens.take(first, last), behind, frame.separator).astype(np.int64),
                segments=np.zeros(stop - start, dtype=np.int64),
                special=special,
                at_cut=np.zeros(stop - start, dtype=bool),
                starts=(*cut, *places.tolist()),
                lengths=(stop - start,),
            )

        def make(i: int) -> Sample:
            start = (begin + i * max_tokens) % total
            stop = start + max_tokens
            if stop <= total:
                return part(start, stop)
            one, two = part(start, total), part(0, stop - total)
            return Sample(
                ids=np.concatenate([one.ids, two.ids]),
                segments=np.zeros(max_tokens, dtype=np.int64),
                special=np.concatenate([one.special, two.special]),
                at_cut=np.zeros(max_tokens, dtype=bool),
                starts=(*one.starts, *(place + len(one) for place in two.starts)),
                lengths=(max_tokens,),
            )

        return Samples(np.full(total // max_tokens, max_tokens, dtype=np.int64), make)
