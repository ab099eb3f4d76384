"""Samples as documents, and documents changed for an encoder and a decoder as a batch of both."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Int
from tunesmith.objectives import Batch, Drawn, Piece
from tunesmith.objectives._packing import by_length, packed
from tunesmith.text.sample import Sample, Vocabulary

Pair = tuple[Piece, Piece]


def documents(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Each document as a sample of its own; those of one row share its stream, one after the other."""
    found = []
    for one in drawn:
        sample, start = one.sample, 0
        if len(sample.lengths) == 1:
            found.append(one)
            continue
        for length in sample.lengths:
            stop = start + length
            part = Sample(
                ids=sample.ids[start:stop],
                segments=sample.segments[start:stop],
                special=sample.special[start:stop],
                at_cut=sample.at_cut[start:stop],
                starts=tuple(begin - start for begin in sample.starts if start <= begin < stop),
                lengths=(length,),
                pair=sample.pair,
            )
            found.append(Drawn(part, one.stream))
            start = stop
    return found


def onward(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Each document as `documents` gives it, but with nothing at its cuts: a text that goes on would learn to end."""
    found = []
    for one in documents(drawn):
        sample, keep = one.sample, ~one.sample.at_cut
        if keep.all():
            found.append(one)
            continue
        before = int(np.argmax(keep))  # nothing is left out between texts
        part = replace(
            sample,
            ids=sample.ids[keep],
            segments=sample.segments[keep],
            special=sample.special[keep],
            at_cut=sample.at_cut[keep],
            starts=tuple(start - before for start in sample.starts),
            lengths=(int(keep.sum()),),
        )
        found.append(Drawn(part, one.stream))
    return found


def written(labels: Int[np.ndarray, "T"], *, start: int, positions: Int[np.ndarray, "T"] | None = None) -> Piece:
    """What a decoder reads to write the labels: themselves, moved right behind its start token."""
    return Piece(
        np.concatenate([[start], labels[:-1]]),
        positions=positions,
        places=np.arange(len(labels)),
        labels=labels,
    )


def both_sides(pairs: Sequence[Pair], *, num_samples: int, device: torch.device | str) -> Batch:
    """A batch of sources and what is written of them, in one order: that of the sources' lengths."""
    order = by_length([source for source, _ in pairs])
    source, _, _ = packed([pairs[i][0] for i in order], device=device)
    target, rows, labels = packed([pairs[i][1] for i in order], device=device)
    num_tokens = source.layout.num_tokens + target.layout.num_tokens
    return Batch(num_samples, num_tokens, source, target, rows=rows, labels=labels)


def need_end(vocabulary: Vocabulary, objective: str) -> int:
    """The token that ends a text.

    Raises:
        CheckpointError: There is none.
    """
    if vocabulary.end is None:
        raise CheckpointError(
            f"tokenizer: has no token that ends a text, such as </s>, which objective {objective} needs: take another "
            "tokenizer, or leave tokenizer unset to train one"
        )
    return vocabulary.end
