"""Encoded examples, the order they are visited in, and packed batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tunesmith.base.layout import Layout, make_layout, spare_rows
from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Int, Tensor
from tunesmith.text.tokenizer import Encoded


class Examples:
    """Token ids of all examples in one flat array, with where each begins.

    Args:
        encoded: What the tokenizer made.
    """

    def __init__(self, encoded: Encoded):
        self.lengths = np.array([len(ids) for ids in encoded.ids], dtype=np.int64)
        self.starts = np.concatenate([[0], self.lengths.cumsum()[:-1]]).astype(np.int64)
        self.ids = np.fromiter((i for ids in encoded.ids for i in ids), np.int64, int(self.lengths.sum()))
        self.segments = np.fromiter((s for row in encoded.segments for s in row), np.int8, len(self.ids))
        self.truncated = sum(encoded.truncated)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens of all examples."""
        return len(self.ids)

    def rows(self, indices: Sequence[int]) -> Int[np.ndarray, "N"]:
        """Places in the flat arrays of the examples' tokens, one example behind the other."""
        return np.concatenate([np.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in indices])


@dataclass(frozen=True)
class Packed:
    """One packed batch.

    Attributes:
        indices: Which examples, in packed order (by length).
        token_ids: Their tokens, and spare rows of token 0 behind them.
        layout: Where they lie.
    """

    indices: tuple[int, ...]
    token_ids: Int[Tensor, "N"]
    layout: Layout

    @property
    def num_samples(self) -> int:
        """Examples in it."""
        return len(self.indices)

    @property
    def num_tokens(self) -> int:
        """Real tokens in it."""
        return self.layout.num_tokens

    def with_noise(self, noise: torch.Generator | None) -> "Packed":
        """The same batch with a stream for dropout."""
        return replace(self, layout=replace(self.layout, noise=noise))


def pack(examples: Examples, indices: Sequence[int], *, device: torch.device | str = "cpu") -> Packed:
    """Pack examples, shortest first."""
    order = sorted(indices, key=lambda i: (examples.lengths[i], i))
    rows = examples.rows(order)
    spare = spare_rows(len(rows))
    segments = torch.from_numpy(examples.segments[rows].astype(np.int64))
    layout = make_layout([int(examples.lengths[i]) for i in order], device=device, segments=segments, spare=spare)
    token_ids = torch.from_numpy(np.pad(examples.ids[rows], (0, spare))).to(device)
    return Packed(tuple(order), token_ids, layout)


def cut_by_tokens(indices: Sequence[int], lengths: Int[np.ndarray, "B"], *, max_tokens: int) -> list[list[int]]:
    """Cut examples, sorted by length, into batches of at most ``max_tokens`` tokens (or one longer example)."""
    batches: list[list[int]] = []
    filled = max_tokens + 1
    for i in sorted(indices, key=lambda i: (lengths[i], i)):
        if filled + lengths[i] > max_tokens:
            batches.append([])
            filled = 0
        batches[-1].append(i)
        filled += int(lengths[i])
    return batches


class Order:
    """Which examples each optimiser step sees: a new permutation each epoch, keyed by (seed, epoch); seek is O(1).

    A step that crosses the end of an epoch goes on in the next one, so each step has exactly ``batch_size`` examples.

    Args:
        size: Number of examples.
        batch_size: Examples in a step.
        seed: Seed of the permutations.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int):
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._permutation = np.zeros(0, dtype=np.int64)

    def step(self, step: int) -> list[int]:
        """Examples of a step, counted from 0."""
        first = step * self.batch_size
        return [self._at(i) for i in range(first, first + self.batch_size)]

    def _at(self, place: int) -> int:
        epoch, offset = divmod(place, self.size)
        if epoch != self._epoch:
            self._permutation = numpy_stream("order", self.seed, epoch).permutation(self.size)
            self._epoch = epoch
        return int(self._permutation[offset])
