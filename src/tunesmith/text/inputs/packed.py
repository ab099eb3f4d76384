"""Rows of several documents that do not see each other, packed best-fit: next to no space is left.

Papers: Fewer Truncations Improve Language Modeling (arXiv:2404.10830), section 3; Efficient Sequence Packing without
Cross-contamination (arXiv:2107.02027).

A document that is too long is cut into full rows and a rest. Pieces are placed longest first, each into the row that it
leaves the least space in.
"""

from collections.abc import Callable, Iterable

import numpy as np

from tunesmith.base.shapes import Int
from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.inputs._cut import room_beside, sentences_of
from tunesmith.text.sample import Frame, Sample, joined
from tunesmith.text.tokens import Tokens


class PackedConfig(InputConfig):
    """Settings of packed rows; each document has its special tokens and positions of its own."""

    def samples(
        self, tokens: Tokens, frame: Frame, *, max_tokens: int, stream: Callable[..., np.random.Generator]
    ) -> Samples:
        """The rows of one epoch; which pieces of one length come together is drawn."""
        room = room_beside(frame.single_size, max_tokens=max_tokens)
        begins = tokens.document_starts
        counts = -(-np.diff(begins) // room)
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = np.repeat(begins[:-1], counts) + inside * room
        stops = np.minimum(starts + room, np.repeat(begins[1:], counts))
        order = stream("order").permutation(len(starts))
        starts, stops = starts[order], stops[order]
        order = np.argsort(starts - stops, kind="stable")
        starts, stops = starts[order], stops[order]
        sizes = stops - starts + frame.single_size
        rows = best_fit(sizes.tolist(), max_tokens)
        order = np.argsort(rows, kind="stable")
        starts, stops = starts[order], stops[order]
        opens, closes = np.isin(starts, begins), np.isin(stops, begins)
        lengths = np.bincount(rows, weights=sizes).astype(np.int64)
        first = np.concatenate([[0], np.cumsum(np.bincount(rows))])

        def make(i: int) -> Sample:
            part = slice(first[i], first[i + 1])
            spans = zip(starts[part].tolist(), stops[part].tolist(), opens[part], closes[part], strict=True)
            return joined(
                [
                    frame.single(sentences_of(tokens, start, stop), begins=bool(begins), ends=bool(ends))
                    for start, stop, begins, ends in spans
                ]
            )

        return Samples(lengths, make)


def best_fit(sizes: Iterable[int], room: int) -> Int[np.ndarray, "N"]:
    """Row of each piece: the one with the least space among those that it fits into, or a new one.

    Args:
        sizes: Tokens of each piece, at most ``room``; longest first leaves the least space.
        room: Tokens of a row.
    """
    rows: list[int] = []
    spaces: list[list[int]] = [[] for _ in range(room + 1)]  # rows by the space that is left in them
    which = 0  # bit s: there are rows with space s
    count = 0
    for size in sizes:
        fitting = which >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = spaces[space].pop()
            if not spaces[space]:
                which ^= 1 << space
        else:
            space, row = room, count
            count += 1
        rows.append(row)
        left = space - size
        if left:
            spaces[left].append(row)
            which |= 1 << left
    return np.array(rows, dtype=np.int64)
